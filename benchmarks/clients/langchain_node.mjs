// LangChain for JavaScript, on both wires: structured outputs by each method, a stream, and a tool with its result.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const message = process.argv[2];
const schema = z.object({ action: z.enum(JSON.parse(readFileSync("labels.json", "utf8"))) });
const route = tool(({ action }) => `sent to ${action}`, { name: "route", description: "Route it.", schema });
const { action: found } = await new ChatOpenAI({ model: "student" }).withStructuredOutput(schema).invoke(message);
for (const useResponsesApi of [false, true]) {
  const model = new ChatOpenAI({ model: "student", useResponsesApi });
  for (const method of ["jsonSchema", "functionCalling"]) {
    const structured = model.withStructuredOutput(schema, { name: "route", method });
    assert.equal((await structured.invoke(message)).action, found);
    if (useResponsesApi && method === "functionCalling") continue; // its parser cannot read a stream of this wire
    let last;
    for await (const part of await structured.stream(message)) last = part;
    assert.equal(last.action, found);
  }
  const called = await model.bindTools([route], { tool_choice: "route" }).invoke(message);
  assert.deepEqual(called.tool_calls.map((call) => call.args), [{ action: found }]);
  const result = await route.invoke(called.tool_calls[0]);
  const end = await model.bindTools([route]).invoke([new HumanMessage(message), called, result]);
  assert(end.text && !end.tool_calls.length);
}
console.log("ANSWER", found);
