// Vercel's AI SDK through @ai-sdk/openai-compatible: text, streams, objects, completions, embeddings. Prints what it got as JSON.
// Usage: node ai_sdk.mjs BASE_URL KEY MODEL

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, streamText } from "ai";
import { z } from "zod";

const [baseURL, apiKey, model] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "homegrown", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const asked = { model: provider(model), prompt: "Who lives by the sea?", maxOutputTokens: 24, temperature: 0, maxRetries: 0 };
const found = {};

const whole = await generateText(asked);
found.chat = whole.text;
found.usage = whole.usage.outputTokens;

const stream = streamText(asked);
found.streamed = "";
for await (const piece of stream.textStream) found.streamed += piece;
found.finish = await stream.finishReason;
found.streamedUsage = (await stream.usage).outputTokens;

const completion = { ...asked, model: provider.completionModel(model) };
found.completion = (await generateText(completion)).text;
found.completionStreamed = "";
for await (const piece of streamText(completion).textStream) found.completionStreamed += piece;

const { object } = await generateObject({
  ...asked,
  maxOutputTokens: 200,
  schema: z.object({ name: z.string().max(12), legs: z.int().min(0).max(8) }),
});
found.animal = object;

found.embeddings = (await embedMany({ model: provider.embeddingModel(model), values: ["The old man", "The sea"] })).embeddings;

try {
  await generateText({ ...asked, temperature: 3 });
} catch (error) {
  found.error = APICallError.isInstance(error) ? [error.statusCode, error.message] : String(error);
}

console.log(JSON.stringify(found));
