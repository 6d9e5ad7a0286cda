// The npm package openai: chat, completions, streams, embeddings, parsed answers and errors. Prints what it got as JSON.
// Usage: node openai.mjs BASE_URL KEY MODEL

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Who lives by the sea?" }];
const asked = { model, messages, max_tokens: 24, temperature: 0 };
const found = {};

found.models = [];
for await (const card of client.models.list()) found.models.push(card.id);

found.chat = (await client.chat.completions.create(asked)).choices[0].message.content;

found.streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.usage = chunk.usage;
}

const runner = client.chat.completions.stream({ ...asked, logprobs: true });
found.accumulated = (await runner.finalChatCompletion()).choices[0].message.content;

const completion = { model, prompt: ["Once upon a time", "The old man"], max_tokens: 8, temperature: 0 };
found.completions = (await client.completions.create(completion)).choices.map((choice) => choice.text);
found.completionsStreamed = ["", ""];
for await (const chunk of await client.completions.create({ ...completion, stream: true })) {
  for (const choice of chunk.choices) found.completionsStreamed[choice.index] += choice.text;
}

const embed = { model, input: "The sea" };
found.embedding = (await client.embeddings.create(embed)).data[0].embedding; // asks for base64
found.embeddingPlain = (await client.embeddings.create({ ...embed, encoding_format: "float" })).data[0].embedding;

const Animal = z.object({ name: z.string().max(12), legs: z.int().min(0).max(8) });
const parsed = await client.chat.completions.parse({ model, messages, seed: 1, response_format: zodResponseFormat(Animal, "animal") });
found.animal = parsed.choices[0].message.parsed;

found.errors = [];
for (const [key, body] of [[apiKey, { ...asked, temperature: 3 }], [apiKey, { ...asked, model: "gpt-5" }], ["wrong", asked]]) {
  try {
    await new OpenAI({ baseURL, apiKey: key, maxRetries: 0 }).chat.completions.create(body);
  } catch (error) {
    found.errors.push([error.constructor.name, error.status, error.param ?? null, error.code ?? null]);
  }
}

const left = await client.chat.completions.create({ model, messages, max_tokens: 400, stream: true });
for await (const chunk of left) if (chunk.choices[0].delta.content) break; // leaves the stream

console.log(JSON.stringify(found));
