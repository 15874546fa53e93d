import type { NodeSnapshot, PullSummary } from "../../local/types.ts";
import { make, mark, part, type Row, Rows, say, show } from "./elements.ts";
import { counted, formatBytes, formatCores, formatShare, formatSince } from "./model/format.ts";
import { type Tone } from "./model/pods.ts";
import { troubledPods } from "./model/state.ts";
import type { View } from "./view.ts";

type Condition = NodeSnapshot["node"]["conditions"][number];

/** Ready is good when it is True, all others are when they are False. */
function conditionTone({ status, type }: Condition): Tone {
  if (status !== "True" && status !== "False") return "bad";
  return (status === "True") === (type === "Ready") ? "good" : "bad";
}

function createCondition(): Row<Condition & { readonly now: number }> {
  const type = make("span", { class: "tone" });
  const since = make("span", { class: "since" });
  const message = make("p");
  return {
    element: make("li", {}, type, since, message),
    update: (condition) => {
      const tone = conditionTone(condition);
      say(
        type,
        condition.status === "True" ? condition.type : `${condition.type}: ${condition.status}`,
      );
      mark(type, "data-tone", tone);
      say(since, formatSince(condition.since, condition.now));
      say(message, tone === "good" ? "" : condition.message || condition.reason);
      show(message, tone !== "good");
    },
  };
}

function createFact(): Row<readonly [string, string]> {
  const name = make("dt");
  const value = make("dd");
  return {
    element: make("div", {}, name, value),
    update: ([title, text]) => {
      say(name, title);
      say(value, text);
    },
  };
}

function factsOf(
  { agent, node, services }: NodeSnapshot,
  now: number,
): readonly (readonly [string, string])[] {
  const { allocatable, apiServer, requested } = node;
  // Never broken before its sign.
  const share = (part: number, whole: number): string =>
    formatShare(part, whole).replace(" ", "\u00a0");
  const reach = apiServer.reachable ? "" : ", out of reach";
  const heartbeat = formatSince(apiServer.lastHeartbeat, now);
  const sync =
    services.lastSync === undefined
      ? services.mode
      : `${services.mode}, synced ${formatSince(services.lastSync, now)} ago`;
  return [
    ...addressFacts(node.addresses),
    ["Kubernetes", agent.kubernetesVersion],
    ["Engine", node.runtime],
    ["API server", `${apiServer.url}${reach}`],
    ["Heartbeat", heartbeat === "-" ? "none yet" : `${heartbeat} ago`],
    [
      "CPU requested",
      `${formatCores(requested.cpu)} of ${formatCores(allocatable.cpu)} cores, ${share(requested.cpu, allocatable.cpu)}`,
    ],
    [
      "Memory requested",
      `${formatBytes(requested.memory)} of ${formatBytes(allocatable.memory)}, ${share(requested.memory, allocatable.memory)}`,
    ],
    ["Services", sync],
    [
      "Agent",
      `Remora ${agent.version}, remora ${agent.mode}, process ${agent.pid}, ${formatBytes(agent.rssBytes)}`,
    ],
    ["Running for", formatSince(agent.started, now)],
  ];
}

function addressFacts(
  addresses: NodeSnapshot["node"]["addresses"],
): readonly (readonly [string, string])[] {
  const types = [...new Set(addresses.map(({ type }) => type))].filter(
    (type) => type !== "Hostname",
  );
  return types.map((type) => [
    type.replace(/IP$/, " address"),
    addresses
      .filter((address) => address.type === type)
      .map(({ address }) => address)
      .join(", "),
  ]);
}

/** The node's name, how it is, its conditions and facts. */
export function createNode(): View {
  const name = part("node-name", HTMLElement);
  const ready = part("node-ready", HTMLElement);
  const line = part("node-line", HTMLElement);
  const conditions = new Rows(
    part("conditions", HTMLElement),
    ({ type }: Condition) => type,
    createCondition,
  );
  const facts = new Rows(
    part("node-facts", HTMLElement),
    ([title]: readonly [string, string]) => title,
    createFact,
  );
  return ({ now, snapshot }) => {
    const { agent, node, pods } = snapshot;
    say(name, node.name);
    say(ready, node.ready ? "Ready" : "Not ready");
    mark(ready, "data-tone", node.ready ? "good" : "bad");
    const troubled = troubledPods(snapshot);
    const problems = troubled === 0 ? "" : `, ${troubled} in trouble`;
    const facts_ = `${counted(pods.length, "pod")}${problems} · ${counted(snapshot.services.services, "Service")} · Kubernetes ${agent.kubernetesVersion} · up for ${formatSince(agent.started, now)}`;
    say(line, node.ready ? facts_ : `${node.message || node.reason} · ${facts_}`);
    conditions.update(node.conditions.map((condition) => ({ ...condition, now })));
    facts.update(factsOf(snapshot, now));
  };
}

function pullWords({ doneBytes, totalBytes, unpacking }: PullSummary): string {
  if (unpacking === true) return `all ${formatBytes(totalBytes ?? doneBytes)} are here, unpacking`;
  if (totalBytes === undefined || totalBytes === 0) return formatBytes(doneBytes);
  const share = formatShare(doneBytes, totalBytes);
  return `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}, ${share}`;
}

function createPull(): Row<PullSummary & { readonly now: number }> {
  const image = make("span", { class: "image" });
  const amount = make("span", { class: "amount" });
  const bar = make("progress");
  const waiting = make("p");
  return {
    element: make("li", {}, image, amount, bar, waiting),
    update: (pull) => {
      const { doneBytes, image: text, pods, started, totalBytes, unpacking } = pull;
      say(image, text);
      mark(bar, "aria-label", `Pulling ${text}`);
      // How long unpacking takes nobody knows.
      if (unpacking === true || totalBytes === undefined || totalBytes === 0)
        bar.removeAttribute("value");
      else {
        bar.max = totalBytes;
        bar.value = Math.min(doneBytes, totalBytes);
      }
      say(amount, `${pullWords(pull)}, for ${formatSince(started, pull.now)}`);
      say(
        waiting,
        pods.length === 0
          ? ""
          : `${counted(pods.length, "pod waits", "pods wait")} for it: ${pods.join(", ")}`,
      );
      show(waiting, pods.length > 0);
    },
  };
}

/** Images on their way, while there are any. */
export function createPulls(): View {
  const section = part("pulls", HTMLElement);
  const rows = new Rows(
    part("pull-list", HTMLElement),
    ({ image }: PullSummary) => image,
    createPull,
  );
  return ({ now, snapshot }) => {
    rows.update(snapshot.pulls.map((pull) => ({ ...pull, now })));
    show(section, snapshot.pulls.length > 0);
  };
}
