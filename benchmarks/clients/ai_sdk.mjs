// Vercel's AI SDK: enums, objects, streams and a tool, with its default model (the Responses wire), the chat model and
// the provider for compatible endpoints.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const prompt = process.argv[2];
const labels = JSON.parse(readFileSync("labels.json", "utf8"));
const schema = z.object({ action: z.enum(labels) });
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL });
const compatible = createOpenAICompatible({ name: "fingerpost", baseURL: process.env.OPENAI_BASE_URL });

const ask = { prompt, output: "enum", enum: labels };
const found = (await generateObject({ model: openai("student"), ...ask })).object;
assert.equal((await generateText({ model: openai.chat("student"), prompt, output: Output.choice({ options: labels }) })).output, found);
for (const model of [openai("student"), openai.chat("student"), compatible("student")]) {
  const object = await generateText({ model, prompt, output: Output.object({ schema }) });
  assert.equal(object.output.action, found);
  assert(object.usage.totalTokens > 0);
  let text = "";
  for await (const delta of streamText({ model, prompt, output: Output.object({ schema }) }).textStream) text += delta;
  assert.equal(JSON.parse(text).action, found);
  const calls = [];
  const route = tool({ description: "Route it.", inputSchema: schema, execute: ({ action }) => calls.push(action) && "sent" });
  const end = await generateText({ model, prompt, tools: { route }, stopWhen: stepCountIs(5) });
  assert(end.text);
  assert.deepEqual(calls, [found]);
}
console.log("ANSWER", found);
