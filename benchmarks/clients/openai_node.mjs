// The official client for JavaScript: zod schemas on both wires, streamed too, and a tool that it runs by itself.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const message = process.argv[2];
const Route = z.object({ action: z.enum(JSON.parse(readFileSync("labels.json", "utf8"))) });
const client = new OpenAI();
const messages = [{ role: "user", content: message }];

const asked = { model: "student", messages, response_format: zodResponseFormat(Route, "route") };
const found = (await client.chat.completions.parse(asked)).choices[0].message.parsed.action;
const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
assert.equal(streamed.choices[0].message.parsed.action, found);

const given = { model: "student", input: message, text: { format: zodTextFormat(Route, "route") } };
assert.equal((await client.responses.parse(given)).output_parsed.action, found);
let text = "";
const events = client.responses.stream(given).on("response.output_text.delta", (event) => (text += event.delta));
const response = await events.finalResponse();
assert.equal(response.output_parsed.action, found);
assert.equal(text, response.output_text);

const calls = [];
const route = { name: "route", parameters: Route, function: ({ action }) => calls.push(action) && "sent" };
const runner = client.chat.completions.runTools({ model: "student", messages, tools: [zodFunction(route)] });
assert(await runner.finalContent());
assert.deepEqual(calls, [found]);
console.log("ANSWER", found);
