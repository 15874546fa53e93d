import { kubernetesVersion } from "../../version.ts";
import { type ApiProbe, type CertificateFacts, probeApi } from "../api-probe.ts";
import { defineCheck, type Finding, judged, skipped } from "../check.ts";
import { noIdentity } from "../identity.ts";

type ApiProblem =
  | "api-kubeconfig"
  | "api-refused"
  | "api-unreachable"
  | "api-name"
  | "api-tls"
  | "api-unauthorized"
  | "api-failing"
  | "api-skew";

const unreachable = new Set([
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function failureOf(code: string): ApiProblem {
  if (code === "ECONNREFUSED") return "api-refused";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "api-name";
  if (unreachable.has(code)) return "api-unreachable";
  return /CERT|TLS|SSL|SIGNATURE|ISSUER|SIGNED/.test(code) ? "api-tls" : "api-unreachable";
}

function minorOf(version: string): number | undefined {
  const minor = /^v1\.(\d+)/.exec(version)?.[1];
  return minor === undefined ? undefined : Number(minor);
}

/** Kubelets may be up to three minor versions older than the API server, and never newer. */
function skewOf(version: string): string | undefined {
  const server = minorOf(version);
  const own = minorOf(kubernetesVersion);
  if (server === undefined || own === undefined) return undefined;
  if (server < own)
    return `the API server is ${version}, older than this node's ${kubernetesVersion}`;
  return server - own > 3
    ? `the API server is ${version}, more than three versions newer than this node's ${kubernetesVersion}`
    : undefined;
}

function judgeProbe({ identity, outcome, server }: ApiProbe): readonly Finding<ApiProblem>[] {
  const who = `as ${identity.name} (${identity.kubeconfig})`;
  if (outcome.kind === "unusable") return [{ problem: "api-kubeconfig", text: outcome.text }];
  if (outcome.kind === "failed") {
    return [{ problem: failureOf(outcome.code), text: `${server}: ${outcome.text}` }];
  }
  if (outcome.status === 401) {
    return [{ problem: "api-unauthorized", text: `${server} answers 401 ${who}` }];
  }
  if (outcome.status >= 500) {
    return [{ problem: "api-failing", text: `${server} answers ${outcome.status} ${who}` }];
  }
  const skew = skewOf(outcome.version);
  return skew === undefined ? [] : [{ problem: "api-skew", text: skew }];
}

export const api = defineCheck<ApiProblem, readonly ApiProbe[]>({
  id: "api",
  title: "API server",
  group: "cluster",
  looks: "whether it answers to each identity of the agent, and its version",
  reference: "docs/join.md",
  problems: {
    "api-kubeconfig": {
      level: "error",
      means: "A kubeconfig of the agent cannot be used.",
      cause: "It is damaged, or names a file that is not there or may not be read.",
      remedy: "remora config check # then: join again, or restore the file the message names",
    },
    "api-refused": {
      level: "error",
      means: "Nobody listens at the API server's address.",
      cause:
        "The control plane is stopped, still starting, or has another address or port than the kubeconfig says. Pods keep running.",
      remedy:
        "systemctl status remora-up # on the control plane's machine; of kubeadm: crictl ps -a | grep kube-apiserver",
    },
    "api-unreachable": {
      level: "error",
      means: "No answer comes from the API server.",
      cause:
        "A firewall between drops the packets, a route is missing, or the machine is off. Pods keep running.",
      remedy:
        "ip route get ADDRESS; nc -vz ADDRESS 6443 # and open the port on the control plane: ufw allow 6443/tcp",
    },
    "api-name": {
      level: "error",
      means: "The API server's name cannot be resolved.",
      cause:
        "The kubeconfig names it, and this machine's name servers do not know the name or do not answer.",
      remedy: "getent hosts NAME # then: /etc/resolv.conf, or an entry in /etc/hosts",
    },
    "api-tls": {
      level: "error",
      means: "The API server's certificate is not trusted.",
      cause:
        "It is another cluster, somebody is in between, the CA was replaced, a certificate has expired, or this machine's clock is wrong.",
      remedy:
        "remora doctor --only clock,certificates # then: put the cluster's CA into the kubeconfig, or join again",
    },
    "api-unauthorized": {
      level: "error",
      means: "The API server does not accept the agent's credentials.",
      cause: "The client certificate is of another CA or has expired, or the token was revoked.",
      remedy:
        "remora token create # on the control plane; then start this node with --join and --token-file",
    },
    "api-failing": {
      level: "error",
      means: "The API server answers with errors.",
      cause: "Its store is slow or full, or it is shutting down.",
      remedy: "kubectl get --raw='/readyz?verbose'",
    },
    "api-skew": {
      level: "warning",
      means: "The API server's version does not go with this node's.",
      cause:
        "A node may be as old as three minor versions before the API server, and never newer (Kubernetes' version skew policy).",
      remedy: "upgrade the control plane first, or install the remora that goes with it",
    },
  },
  collect: probeApi,
  judge: (probes) => {
    if (probes.length === 0) return skipped(noIdentity);
    const findings = probes.flatMap(judgeProbe);
    // One trouble of the way there is the same for all identities.
    const distinct = [
      ...new Map(findings.map((one) => [`${one.problem} ${one.text}`, one])).values(),
    ];
    const versions = probes.flatMap(({ outcome, server }) =>
      outcome.kind === "answered" ? [`${server} ${outcome.version}`] : [],
    );
    return judged([...new Set(versions)].join(", "), distinct);
  },
});

const dayMs = 86_400_000;

function date(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

type CertificateProblem = "certificate-expired" | "certificate-early" | "certificate-ending";

/** A certificate that renews itself does so at the latest when a tenth of its life is left. */
function judgeCertificate(
  { from, name, to, what }: CertificateFacts,
  now: number,
): readonly Finding<CertificateProblem>[] {
  const about = `${what} (${name})`;
  if (to <= now) {
    return [{ problem: "certificate-expired", text: `${about} expired at ${date(to)}` }];
  }
  if (from > now) {
    return [{ problem: "certificate-early", text: `${about} is valid from ${date(from)} on` }];
  }
  const soon = Math.min((to - from) * 0.05, 30 * dayMs);
  return to - now < soon
    ? [{ problem: "certificate-ending", text: `${about} expires at ${date(to)}` }]
    : [];
}

export const certificates = defineCheck({
  id: "certificates",
  title: "Certificates",
  group: "cluster",
  looks: "how long the agent's, the API server's and the cluster's certificates are good",
  reference: "docs/certificates.md",
  problems: {
    "certificate-expired": {
      level: "error",
      means: "A certificate has expired.",
      cause:
        "The machine was off or without its API server when it was due, or nobody renews it; or this machine's clock is wrong.",
      remedy:
        "remora up: systemctl restart remora-up; joined: remora token create, then start with --join and --token-file; kubeadm: kubeadm certs renew all",
    },
    "certificate-early": {
      level: "error",
      means: "A certificate is not valid yet.",
      cause: "This machine's clock, or that of the one that issued it, is wrong.",
      remedy: "timedatectl set-ntp true",
    },
    "certificate-ending": {
      level: "warning",
      means: "A certificate expires soon, and was not renewed in time.",
      cause:
        "What renews itself does so long before; requests for another one fail, wait for an approval, or nobody renews it.",
      remedy:
        "kubectl get csr # kubectl certificate approve NAME; journalctl -u 'remora*' | grep certificates",
    },
  },
  collect: async (machine, signal) => ({
    now: machine.clock.now(),
    probes: await probeApi(machine, signal),
  }),
  judge: ({ now, probes }) => {
    const all = new Map(
      probes.flatMap((one) =>
        one.certificates.map((facts) => [`${facts.what} ${facts.to}`, facts]),
      ),
    );
    if (all.size === 0) return skipped("no certificates are used here");
    const first = Math.min(...[...all.values()].map(({ to }) => to));
    return judged(
      `${all.size}, the first one expires at ${date(first)}`,
      [...all.values()].flatMap((facts) => judgeCertificate(facts, now)),
    );
  },
});
