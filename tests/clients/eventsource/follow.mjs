// Follows an event stream for ever, an event a line: node follow.mjs URL
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
source.onmessage = ({ data }) => console.log(data);
source.onerror = ({ code, message }) => console.error(`broken: ${code ?? ""} ${message ?? ""}`);
