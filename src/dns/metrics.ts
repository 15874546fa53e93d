import { header, type Labels, labelText, valueText } from "../lib/metrics-text.ts";
import { type NameServerCounts, upstreamBounds } from "./counts.ts";

/** Names of rcodes as CoreDNS writes them. */
const rcodeNames = [
  "NOERROR",
  "FORMERR",
  "SERVFAIL",
  "NXDOMAIN",
  "NOTIMP",
  "REFUSED",
  "YXDOMAIN",
  "YXRRSET",
  "NXRRSET",
  "NOTAUTH",
  "NOTZONE",
] as const;

/** One server for all names, as in kubeadm's Corefile. What CoreDNS tells by labels that are not counted here is added up. */
const ours: Labels = { server: "dns://:53", zone: ".", view: "" };
const cacheOf: Labels = { server: "dns://:53", zones: ".", view: "" };

type Sample = readonly [Labels, number];

function counter(name: string, help: string, samples: readonly Sample[]): readonly string[] {
  return [
    ...header(name, "counter", help),
    ...samples.map(([labels, value]) => `${name}${labelText(labels)} ${valueText(value)}`),
  ];
}

function upstreamHistogram({ buckets, seconds, count }: NameServerCounts["upstream"]): string[] {
  const name = "coredns_proxy_request_duration_seconds";
  const labels = { proxy_name: "forward" };
  const lines = header(name, "histogram", "Seconds that name servers of the host took to answer");
  let below = 0;
  upstreamBounds.forEach((bound, index) => {
    below += buckets[index] ?? 0;
    lines.push(`${name}_bucket${labelText({ ...labels, le: String(bound) })} ${below}`);
  });
  lines.push(
    `${name}_bucket${labelText({ ...labels, le: "+Inf" })} ${count}`,
    `${name}_sum${labelText(labels)} ${valueText(seconds)}`,
    `${name}_count${labelText(labels)} ${count}`,
  );
  return lines;
}

/**
 * The figures of the name server in the Prometheus text format, under CoreDNS's names where it has them, so that its
 * dashboards and alerts go on; what it does not have begins with `remora_dns_`.
 */
export function dnsMetrics(counts: NameServerCounts): string {
  const { forward } = counts;
  const lines = [
    ...counter("coredns_dns_requests_total", "Questions by transport", [
      [{ ...ours, proto: "udp" }, counts.udp],
      [{ ...ours, proto: "tcp" }, counts.tcp],
    ]),
    ...counter(
      "coredns_dns_responses_total",
      "Replies by their code",
      counts.replies.flatMap((count, rcode): Sample[] =>
        count === 0 && rcode > 0
          ? []
          : [[{ ...ours, rcode: rcodeNames[rcode] ?? String(rcode) }, count]],
      ),
    ),
    ...counter("coredns_cache_requests_total", "Questions for names outside the cluster", [
      [cacheOf, forward.cacheSuccess + forward.cacheDenial + forward.cacheMiss],
    ]),
    ...counter("coredns_cache_hits_total", "Of these: answered by a reply that was at hand", [
      [{ ...cacheOf, type: "success" }, forward.cacheSuccess],
      [{ ...cacheOf, type: "denial" }, forward.cacheDenial],
    ]),
    ...counter("coredns_cache_misses_total", "Of these: no reply was at hand", [
      [cacheOf, forward.cacheMiss],
    ]),
    ...upstreamHistogram(counts.upstream),
    ...counter(
      "coredns_proxy_healthcheck_failures_total",
      "Probes that a name server of the host did not answer",
      [[{ proxy_name: "forward" }, forward.probeFailed]],
    ),
    ...counter(
      "coredns_forward_max_concurrent_rejects_total",
      "Questions refused because too many waited for an answer",
      [[{}, forward.rejected]],
    ),
    ...counter("remora_dns_forwarded_total", "Questions to name servers of the host", [
      [{}, forward.forwarded],
    ]),
    ...counter(
      "remora_dns_stray_replies_total",
      "Datagrams that pretended to be an answer of theirs",
      [[{}, forward.stray]],
    ),
    ...counter(
      "remora_dns_known_replies_total",
      "Questions answered with the bytes of an earlier reply",
      [[{}, counts.known]],
    ),
    ...counter(
      "remora_dns_limited_total",
      "Questions not answered because their source asked too many",
      [[{}, counts.limited]],
    ),
    ...counter("remora_dns_dropped_total", "Messages not answered because they were no questions", [
      [{}, counts.dropped],
    ]),
  ];
  return `${lines.join("\n")}\n`;
}
