// instructor for JavaScript: an enum as response model in each of its modes, and partial objects from a stream.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import Instructor from "@instructor-ai/instructor";
import OpenAI from "openai";
import { z } from "zod";

const schema = z.object({ action: z.enum(JSON.parse(readFileSync("labels.json", "utf8"))) });
const messages = [{ role: "user", content: process.argv[2] }];
let found;
for (const mode of ["TOOLS", "FUNCTIONS", "JSON", "MD_JSON", "JSON_SCHEMA"]) {
  const client = Instructor({ client: new OpenAI(), mode });
  const asked = { model: "student", messages, response_model: { schema, name: "Route" } };
  const { action } = await client.chat.completions.create({ ...asked, max_retries: 0 });
  found ??= action;
  assert.equal(action, found, mode);
  let last;
  for await (const partial of await client.chat.completions.create({ ...asked, stream: true })) last = partial;
  assert.equal(last.action, found, mode);
}
console.log("ANSWER", found);
