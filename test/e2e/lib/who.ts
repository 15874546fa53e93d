// Pods that say who asks them.

/** Answers with the caller's address and the pod's name. */
const serve = String.raw`mkdir -p /www/cgi-bin
printf '#!/bin/sh\nprintf "\\r\\n"\necho "$REMOTE_ADDR asked %s"\n' "$POD_NAME" >/www/cgi-bin/who
chmod +x /www/cgi-bin/who
trap 'exit 0' TERM
echo "started $POD_NAME"
httpd -f -p "$PORT" -h /www & wait`;

/** A container that answers {@link whoQuestion}. */
export function whoContainer(port = 8080): object {
  return {
    name: "web",
    image: "docker.io/library/busybox:1.36",
    command: ["sh", "-c", serve],
    env: [
      { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "PORT", value: String(port) },
    ],
    readinessProbe: { tcpSocket: { port }, periodSeconds: 1 },
  };
}

/** The words of a shell that asks. One try, three seconds. */
export function whoQuestion(address: string, port: number): readonly string[] {
  const text = String.raw`printf 'GET /cgi-bin/who HTTP/1.0\r\n\r\n' | timeout 3 busybox nc ${address} ${port}`;
  return ["sh", "-c", text];
}

export interface WhoAnswer {
  /** Who asked, as the pod saw it. */
  readonly from: string;
  /** The pod's name. */
  readonly by: string;
}

/** What an asking shell printed; undefined without an answer. */
export function parseWho(text: string): WhoAnswer | undefined {
  const [, from, by] = /^(\S+) asked (\S+)$/m.exec(text) ?? [];
  return from === undefined || by === undefined
    ? undefined
    : { from: from.replaceAll(/[[\]]|::ffff:/g, ""), by };
}
