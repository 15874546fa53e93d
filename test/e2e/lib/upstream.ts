// A name server for a machine: every name below example.test has one address. Runs until it is ended.
import { FakeNameServer } from "../../fakes/name-server.ts";

const [address = "127.0.0.1"] = process.argv.slice(2);
await FakeNameServer.start(
  ({ name, type }) => {
    if (!name.endsWith(".example.test")) return { rcode: 3 };
    return type === "A" ? { answers: [{ name, type, ttl: 300, data: "192.0.2.7" }] } : {};
  },
  address,
  53,
);
process.stdout.write("ready\n");
