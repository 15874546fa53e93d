// The API server of test/bench/proxy-memory.ts, on the machine that the agent runs on: arguments are a number of
// Services and the file that gets a kubeconfig. Prints one line when it serves; ends when it is told to.
import { writeFileSync } from "node:fs";

import { ENDPOINT_SLICES, SERVICES } from "../../src/api/resources.ts";
import { startFakeApiServer } from "../fakes/api-server.ts";
import { numbered } from "./proxy-cluster.ts";

const [count, file = ""] = [Number(process.argv[2]), process.argv[3]];
const api = await startFakeApiServer();
for (let index = 0; index < count; index += 1) {
  const made = numbered(index, 2);
  api.put(SERVICES, made.service);
  api.put(ENDPOINT_SLICES, made.slice);
}
writeFileSync(
  file,
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "bench",
    clusters: [{ name: "bench", cluster: { server: api.url } }],
    contexts: [{ name: "bench", context: { cluster: "bench", user: "bench" } }],
    users: [{ name: "bench", user: { token: "bench" } }],
  }),
);
process.stdout.write("serving\n");
process.on("SIGTERM", () => {
  void api.close();
});
