// A read-only image registry (OCI distribution API) that serves one image under any name:
//   node test/fakes/registry.ts PORT LAYER.tar [USER:PASSWORD]
// Names with /missing/ in them do not exist, and layers of those with /slow/ take ten seconds.
// Docker talks plain HTTP to registries on loopback, so it needs no certificates.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";

interface Blob {
  readonly digest: string;
  readonly content: Buffer;
  readonly type: string;
}

function blob(content: Buffer, type: string): Blob {
  return { digest: `sha256:${createHash("sha256").update(content).digest("hex")}`, content, type };
}

const [port = "5000", layerFile = "", credentials] = process.argv.slice(2);
const tar = readFileSync(layerFile);
const layer = blob(gzipSync(tar), "application/vnd.docker.image.rootfs.diff.tar.gzip");
const config = blob(
  Buffer.from(
    JSON.stringify({
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      config: { Env: ["PATH=/bin"], Cmd: ["sh"] },
      rootfs: {
        type: "layers",
        diff_ids: [`sha256:${createHash("sha256").update(tar).digest("hex")}`],
      },
      history: [{ created: "2026-01-01T00:00:00Z" }],
    }),
  ),
  "application/vnd.docker.container.image.v1+json",
);
const describe = ({ digest, content, type }: Blob): object => ({
  mediaType: type,
  size: content.length,
  digest,
});
const manifest = blob(
  Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.docker.distribution.manifest.v2+json",
      config: describe(config),
      layers: [describe(layer)],
    }),
  ),
  "application/vnd.docker.distribution.manifest.v2+json",
);

const expected =
  credentials === undefined ? undefined : `Basic ${Buffer.from(credentials).toString("base64")}`;

/** In fifty pieces, each two tenths of a second after the one before. */
async function sendSlowly(response: ServerResponse, content: Buffer): Promise<void> {
  const size = Math.ceil(content.length / 50);
  for (let from = 0; from < content.length && !response.destroyed; from += size) {
    response.write(content.subarray(from, from + size));
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  response.end();
}

createServer((request, response) => {
  const url = request.url ?? "";
  if (expected !== undefined && request.headers.authorization !== expected) {
    response.writeHead(401, {
      "www-authenticate": 'Basic realm="test"',
      "content-type": "application/json",
    });
    response.end(
      JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] }),
    );
    return;
  }
  const missing = url.includes("/missing/");
  const wanted = url.includes("/manifests/")
    ? manifest
    : [config, layer].find(({ digest }) => url.endsWith(digest));
  if (url === "/v2/") {
    response.end("{}");
  } else if (wanted === undefined || missing) {
    response.writeHead(404, { "content-type": "application/json" });
    response.end(
      JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: "manifest unknown" }] }),
    );
  } else {
    response.writeHead(200, {
      "content-type": wanted.type,
      "content-length": wanted.content.length,
      "docker-content-digest": wanted.digest,
    });
    if (request.method === "HEAD") response.end();
    else if (url.includes("/slow/") && wanted === layer) void sendSlowly(response, wanted.content);
    else response.end(wanted.content);
  }
}).listen(Number(port), "127.0.0.1", () => process.stdout.write("listening\n"));
