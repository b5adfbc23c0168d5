// The official SDK's event stream, event by event as JSON lines: node events.mjs BASE_URL
import { createOpencodeClient } from "@opencode-ai/sdk";

const client = createOpencodeClient({ baseUrl: process.argv[2] });
const { stream } = await client.event.subscribe({ onSseError: (error) => console.error(`broken: ${error}`) });
for await (const event of stream) console.log(JSON.stringify(event));
console.error("ended");
