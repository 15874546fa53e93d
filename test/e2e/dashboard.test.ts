import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, test } from "node:test";

import * as fc from "fast-check";

import { bundle } from "../../scripts/package/bundle.ts";
import type { NodeSnapshot } from "../../src/agent/local/types.ts";
import { FakeAgent } from "../component/dashboard/agent.ts";
import { event, pod, service, snapshot } from "../component/dashboard/snapshots.ts";
import { inTemporary } from "../fakes/temporary.ts";
import { Browser, findBrowser, type Page, type PageLook } from "./lib/dashboard-browser.ts";
import { Machine, root } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraDown, remoraUp } from "./lib/remora.ts";

const program = findBrowser();
const skip = program === undefined ? "needs Chromium on this machine" : false;

/** As it is installed: with the page that was bundled. */
let artefact = "";
before(async () => {
  if (skip !== false) return;
  artefact = await mkdtemp(join(tmpdir(), "remora-artefact-"));
  await bundle(artefact);
});
after(async () => {
  if (artefact !== "") await rm(artefact, { recursive: true });
});

/** The user and the only group that a process has. */
interface Who {
  readonly uid?: number;
  readonly gid?: number;
}

function commandLine(stateDir: string, port: number): readonly string[] {
  const flags = ["--state-dir", stateDir, "--port", String(port), "--print-url"];
  return [`${artefact}/remora.cjs`, "dashboard", ...flags];
}

/** `remora dashboard` as a user starts it. */
class Dashboard {
  readonly #child: ChildProcess;
  readonly url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  static async start(stateDir: string, port = 0, who: Who = {}): Promise<Dashboard> {
    const child = spawn(`${root}/bin/node`, commandLine(stateDir, port), {
      ...who,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface(child.stdout);
    const [url] = (await Promise.race([
      once(lines, "line"),
      once(child, "exit").then(() => assert.fail("remora dashboard has ended")),
    ])) as [string];
    return new Dashboard(child, url);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const [code] = (await ended) as [number | null];
    assert.equal(code, 0, "it ends in order");
  }
}

interface World {
  readonly agent: FakeAgent;
  readonly dashboard: Dashboard;
  readonly directory: string;
  /** Tells pages another state of the node. */
  readonly tell: (changes: Partial<NodeSnapshot>) => void;
}

/** An agent that tells what a test wants, and the dashboard beside it. */
async function withAgent(
  changes: Partial<NodeSnapshot>,
  work: (world: World) => Promise<void>,
): Promise<void> {
  await inTemporary(async (directory) => {
    const agent = new FakeAgent(join(directory, "local.sock"), snapshot(Date.now(), changes));
    await agent.start();
    const dashboard = await Dashboard.start(directory);
    const tell: World["tell"] = (next) => agent.tell(snapshot(Date.now(), { ...changes, ...next }));
    try {
      await work({ agent, dashboard, directory, tell });
    } finally {
      await dashboard.stop();
      await agent.stop();
    }
  });
}

/** The text of what a selector finds. */
function textOf(selector: string): string {
  return `[...document.querySelectorAll(${JSON.stringify(selector)})].map((each) => each.textContent).join("|")`;
}

function shows(selector: string, text: string): string {
  return `${textOf(selector)}.includes(${JSON.stringify(text)})`;
}

/** What makes the page wider than the window; empty when nothing does. */
const tooWide = `document.documentElement.scrollWidth <= innerWidth ? "" :
  [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > innerWidth)
    .map((each) => each.tagName + "." + each.getAttribute("class") + "#" + each.id).join(" ")`;

/** Pieces of markup and code in any order. */
const markup = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        "<script>",
        "</script>",
        "window.pwned=1",
        "<img src=x onerror=",
        "<svg/onload=",
        "<style>*{display:none}</style>",
        "<!--",
        "]]>",
        "&lt;",
        '"',
        "'",
        "`",
        "${",
        "}",
        "\\u003c",
        "</textarea>",
        "javascript:",
        "\u2028",
        "\u202e",
        "\0",
      ),
      fc.string({ unit: "grapheme", maxLength: 8 }),
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((pieces) => pieces.join(""));

const isShown = "!document.getElementById('main').hidden";

describe("the dashboard in a browser", { skip }, () => {
  let browser: Browser;
  before(async () => {
    browser = await Browser.start(program ?? "");
  });
  afterEach(async () => browser.closePages());
  after(async () => browser.close());

  async function open({ url }: Dashboard, look: PageLook = {}): Promise<Page> {
    const page = await browser.newPage(look);
    await page.goto(url);
    await page.until(isShown);
    return page;
  }

  function noProblems(page: Page): void {
    assert.deepEqual(page.problems, []);
  }

  test("opens with its address, keeps the key to itself, and asks nobody else", () =>
    withAgent({}, async ({ dashboard }) => {
      const page = await open(dashboard);
      assert.equal(await page.evaluate("location.hash"), "");
      assert.equal(await page.evaluate("document.cookie"), "");
      assert.equal(await page.evaluate(textOf("#node-name")), "node-a");
      assert.equal(await page.evaluate(textOf("#live-label")), "Live");
      await page.reload();
      await page.until(`${isShown} && ${shows("#live-label", "Live")}`);
      const { origin, hash } = new URL(dashboard.url);
      for (const request of page.requests) {
        assert.ok(request.startsWith(`${origin}/`), request);
        // The document's own address is told with its fragment, which no browser sends.
        assert.ok(!new URL(request).search.includes(hash.slice(1)));
      }
      noProblems(page);
    }));

  test("needs no root but the socket's group; others are told so at once", async (t) => {
    const stranger = { uid: 65_534, gid: 65_534 };
    const member = { uid: 65_534, gid: 65_533 };
    const canRun = spawnSync(`${root}/bin/node`, ["--version"], { ...member, cwd: "/" });
    if (process.getuid?.() !== 0 || canRun.status !== 0) {
      t.skip("needs root, and a checkout that other users may read");
      return;
    }
    await withAgent({}, async ({ directory }) => {
      for (const path of [artefact, directory]) await chmod(path, 0o755);
      await chown(join(directory, "local.sock"), 0, member.gid);
      await chmod(join(directory, "local.sock"), 0o660);
      const dashboard = await Dashboard.start(directory, 0, member);
      try {
        const page = await open(dashboard);
        assert.equal(await page.evaluate(textOf("#node-name")), "node-a");
      } finally {
        await dashboard.stop();
      }
      const args = commandLine(directory, 0);
      const refused = spawnSync(`${root}/bin/node`, args, { ...stranger, timeout: 20_000 });
      assert.equal(refused.status, 1);
      assert.match(String(refused.stderr), /it is for root and the group remora; use sudo/);
      assert.equal(String(refused.stdout), "");
    });
  });

  test("without the key, or with another one, it says what to do and shows nothing", () =>
    withAgent({}, async ({ dashboard }) => {
      const { origin } = new URL(dashboard.url);
      const page = await browser.newPage();
      await page.goto(`${origin}/`);
      await page.until(shows("#notice", "Open the whole address"));
      noProblems(page);
      const stranger = await browser.newPage();
      await stranger.goto(`${origin}/#AAAAAAAAAAAAAAAAAAAAAA`);
      await stranger.until(shows("#notice", "earlier start"));
      for (const each of [page, stranger]) {
        assert.equal(await each.evaluate("document.getElementById('main').hidden"), true);
        assert.equal(await each.evaluate("document.body.innerText.includes('node-a')"), false);
      }
    }));

  test("shows pods with their reasons, pulls, Services and events, and follows them", () => {
    const broken = pod({
      name: "broken",
      ready: false,
      readyContainers: 0,
      status: "ImagePullBackOff",
      why: "image x:1 cannot be pulled: manifest unknown",
    });
    const changes: Partial<NodeSnapshot> = {
      pods: [pod({ name: "alright" }), broken],
      unscheduled: [
        pod({
          name: "large",
          phase: "Pending",
          ready: false,
          readyContainers: 0,
          status: "Pending",
          why: "no node takes it: 1 Insufficient memory",
        }),
      ],
      pulls: [
        {
          image: "x:2",
          started: new Date().toISOString(),
          totalBytes: 1000,
          doneBytes: 250,
          pods: ["default/waits"],
        },
      ],
      events: [event({ type: "Warning", reason: "Failed", message: "no such image" })],
    };
    return withAgent(changes, async ({ dashboard, tell }) => {
      const page = await open(dashboard);
      assert.equal(await page.evaluate(textOf("#pods tbody .name")), "broken|large|alright");
      assert.equal(
        await page.evaluate(textOf("#pods .why:not([hidden])")),
        "image x:1 cannot be pulled: manifest unknown|no node takes it: 1 Insufficient memory",
      );
      assert.equal(
        await page.evaluate(textOf("#pods-count")),
        "3 pods, 2 not ready, 1 without a node",
      );
      assert.equal(await page.evaluate("document.querySelector('progress').position"), 0.25);
      assert.equal(await page.evaluate(textOf(".box text")), "web|1/1|web");
      assert.match(String(await page.evaluate(textOf("#events li"))), /no such image/);
      assert.match(String(await page.evaluate("document.title")), /^\(1\) node-a/);

      tell({
        pulls: [
          {
            image: "x:2",
            started: new Date().toISOString(),
            totalBytes: 1000,
            doneBytes: 1000,
            unpacking: true,
            pods: [],
          },
        ],
      });
      await page.until(shows("#pull-list .amount", "all 1000 B are here, unpacking"));
      assert.equal(await page.evaluate("document.querySelector('progress').position"), -1);
      tell({
        pods: [pod({ name: "alright" }), pod({ name: "broken", restarts: 3 })],
        unscheduled: [],
        pulls: [],
      });
      await page.until(`${textOf("#pods tbody .tone")} === "Running|Running"`);
      assert.equal(await page.evaluate("document.getElementById('pulls').hidden"), true);
      assert.match(String(await page.evaluate("document.title")), /^node-a/);
      tell({ pods: [], unscheduled: [] });
      await page.until(shows("#pods-empty", "No pods on this node yet."));
      noProblems(page);
    });
  });

  test("says how the agent is when it is not, keeps what it knew, and comes back", () =>
    withAgent({}, async ({ agent, dashboard, tell }) => {
      const page = await open(dashboard);
      await agent.stop();
      await page.until(shows("#notice", "No agent runs on this machine"));
      assert.equal(await page.evaluate(textOf("#pods tbody .name")), "web");
      assert.equal(await page.evaluate("document.getElementById('main').className"), "old");
      await agent.start();
      tell({ pods: [pod({ name: "after" })] });
      await page.until(shows("#pods tbody .name", "after"));
      await page.until(
        `${shows("#live-label", "Live")} && document.getElementById("notice").hidden`,
      );
      noProblems(page);
    }));

  test("says that the dashboard is gone, looks for it, and knows another start of it", () =>
    withAgent({}, async ({ dashboard, directory }) => {
      const page = await open(dashboard);
      await dashboard.stop();
      await page.until(shows("#notice", "does not answer"));
      assert.match(String(await page.evaluate("document.title")), /^\? node-a/);
      const second = await Dashboard.start(directory, dashboard.port);
      try {
        await page.until(shows("#notice", "earlier start"), 20_000);
        await page.goto(second.url);
        await page.until(`${isShown} && ${shows("#live-label", "Live")}`);
      } finally {
        await second.stop();
      }
    }));

  test("what pods, events and images are called is text and nothing else", () => {
    const hostile = [
      `<img src=x onerror="window.pwned=1">`,
      `<script>window.pwned=1</script>`,
      `"><svg onload=window.pwned=1>`,
      `javascript:window.pwned=1`,
      `</title></style><iframe srcdoc="<script>parent.pwned=1</script>">`,
      `\u202Egnp.exe\u0000\u001B[31m`,
      "{{constructor.constructor('window.pwned=1')()}}",
      "__proto__",
      "x".repeat(3000),
      ...fc.sample(markup, { numRuns: 60, seed: 20_260_301 }),
    ];
    const changes: Partial<NodeSnapshot> = {
      pods: hostile.map((text, index) =>
        pod({
          name: text,
          namespace: text,
          uid: `${index}${text}`,
          status: text,
          why: text,
          ip: text,
          ready: false,
        }),
      ),
      events: hostile.map((text) =>
        event({ reason: text, object: text, message: text, time: text }),
      ),
      pulls: hostile.map((text) => ({
        image: text,
        started: text,
        totalBytes: 10,
        doneBytes: 100,
        pods: [text],
      })),
      services: {
        mode: hostile[0] ?? "",
        services: hostile.length,
        endpoints: 1,
        lastSync: hostile[1],
        lastSyncSeconds: 1,
        list: hostile.map((text) =>
          service({
            name: text,
            namespace: "n",
            type: text,
            clusterIPs: [text],
            ports: [text],
            localPods: [`n/${text}`],
          }),
        ),
      },
    };
    return withAgent(changes, async ({ dashboard }) => {
      const page = await open(dashboard, { width: 360, height: 740 });
      await page.evaluate("document.getElementById('services-as-table').click()");
      const services = new Set(hostile).size;
      await page.until(`document.querySelectorAll('#services-rows tr').length === ${services}`);
      await page.evaluate("document.getElementById('services-as-graph').click()");
      // A frame for what would run late.
      await page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))");
      assert.equal(await page.evaluate("'pwned' in window"), false);
      assert.equal(await page.evaluate("document.querySelectorAll('img, iframe').length"), 0);
      assert.equal(await page.evaluate("document.scripts.length"), 1);
      assert.equal(
        await page.evaluate(
          "[...document.querySelectorAll('*')].flatMap((each) => each.getAttributeNames()).filter((name) => name.startsWith('on')).length",
        ),
        0,
      );
      assert.deepEqual(
        await page.evaluate(
          "[...document.querySelectorAll('#pods tbody .name')].map((each) => each.textContent).sort()",
        ),
        hostile.toSorted(),
        "each is there as it was written",
      );
      // Three thousand letters without a space are among them.
      assert.equal(await page.evaluate(tooWide), "");
      noProblems(page);
    });
  });

  test("is led by keys: / searches everything, Escape ends it, Enter sorts", () =>
    withAgent(
      {
        pods: [pod({ name: "cart", memory: 10 }), pod({ name: "shop", memory: 99 })],
        services: {
          ...snapshot(0).services,
          list: [service({ name: "web", localPods: ["default/cart"] })],
        },
        events: [event({ object: "Pod default/cart" }), event({ object: "Pod default/shop" })],
      },
      async ({ dashboard }) => {
        const page = await open(dashboard);
        await page.press("/", "/");
        await page.type("shop");
        await page.until(`${textOf("#pods tbody .name")} === "shop"`);
        assert.equal(await page.evaluate(textOf("#events .object")), "Pod default/shop");
        assert.match(String(await page.evaluate(textOf("#pods-count"))), /^1 of 2 pods/);
        await page.press("Escape");
        await page.until(`${textOf("#pods tbody .name")} === "cart|shop"`);
        for (const [key, text] of [
          ["Enter", "\r"],
          [" ", " "],
        ] as const) {
          await page.evaluate("document.querySelector('.box').focus()");
          await page.press(key, text);
          await page.until("document.getElementById('search').value === 'web'");
          await page.press(key, text);
          await page.until("document.getElementById('search').value === ''");
        }
        // What is not shown yet takes no focus.
        await page.until("document.querySelector('#pods-head button').offsetParent !== null");
        await page.evaluate("document.querySelectorAll('#pods-head button')[5].focus()");
        await page.press("Enter", "\r");
        await page.until(`${textOf("#pods tbody .name")} === "shop|cart"`);
        assert.equal(
          await page.evaluate("document.querySelectorAll('#pods-head th')[5].ariaSort"),
          "descending",
        );
        await page.evaluate("document.querySelector('#plot-cpu svg').focus()");
        await page.press("ArrowLeft");
        await page.until(shows("#plot-cpu .note", "ago"));
        noProblems(page);
      },
    ));

  test("fits every width, by day and by night", () => {
    const long = "a-very-long-name-of-a-deployment-that-somebody-generated-7d9f8c6b5f-x2k4p";
    const changes: Partial<NodeSnapshot> = {
      pods: [pod({ name: long, namespace: long, ip: "fd00:1234:5678:9abc:def0:1234:5678:9abc" })],
      services: {
        ...snapshot(0).services,
        list: [service({ name: long, namespace: long, localPods: [`${long}/${long}`] })],
      },
    };
    return withAgent(changes, async ({ dashboard }) => {
      const backgrounds = new Set<unknown>();
      for (const scheme of ["light", "dark"] as const) {
        const page = await open(dashboard, { scheme });
        for (const width of [320, 360, 480, 761, 1001, 1281, 1600]) {
          await page.look({ width, scheme, height: 800 });
          await page.until(`innerWidth === ${width}`);
          await page.evaluate("new Promise((resolve) => setTimeout(resolve, 50))");
          assert.equal(await page.evaluate(tooWide), "", `${scheme} ${width}`);
        }
        backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
        noProblems(page);
      }
      assert.equal(backgrounds.size, 2);
    });
  });

  test("a full node is drawn whole, its Services as far as a person can follow them", () => {
    const names = Array.from({ length: 250 }, (_, index) => `pod-${index}`);
    const changes: Partial<NodeSnapshot> = {
      pods: names.map((name) => pod({ name })),
      services: {
        ...snapshot(0).services,
        services: 500,
        list: Array.from({ length: 500 }, (_, index) =>
          service({ name: `service-${index}`, localPods: [`default/pod-${index % 250}`] }),
        ),
      },
      events: Array.from({ length: 200 }, (_, index) => event({ message: `event ${index}` })),
    };
    return withAgent(changes, async ({ dashboard, tell }) => {
      const page = await open(dashboard);
      assert.equal(await page.evaluate("document.querySelectorAll('#pods tbody').length"), 250);
      assert.equal(await page.evaluate("document.querySelectorAll('.box.service').length"), 40);
      assert.match(String(await page.evaluate(textOf("#services-empty"))), /460 more do not fit/);
      tell({ pods: names.map((name) => pod({ name, restarts: 1 })) });
      await page.until(`${textOf("#pods tbody:last-child [data-label=Restarts]")} === "1"`);
      noProblems(page);
    });
  });
});

describe("the dashboard of a real node", { skip: cannotRun() ?? skip }, () => {
  test("shows pods from their start to their end, over a restart of the agent", async () => {
    await using machine = await Machine.start("page");
    await machine.loadBusybox();
    const agent = await remoraUp(machine);
    const dashboard = await Dashboard.start(machine.path("/var/lib/remora"));
    const browser = await Browser.start(program ?? "");
    try {
      const page = await browser.newPage();
      await page.goto(dashboard.url);
      await page.until(`${isShown} && ${shows("#node-ready", "Ready")}`);
      assert.equal(await page.evaluate(textOf("#node-name")), machine.name);
      await machine.kubectl(["create", "-f", `${root}/examples/hello.yaml`]);
      await page.until(
        `${textOf("#pods tbody .tone")}.split("|").filter((each) => each === "Running").length === 3`,
        60_000,
      );
      // The pair is behind no Service.
      await page.until(`${textOf(".box.service text")} === "hello|2/2"`, 30_000);
      const edges = `[...document.querySelectorAll(".edge")].map((each) => each.dataset.from).join(" ")`;
      assert.equal(await page.evaluate(edges), "service:default/hello service:default/hello");
      await page.until("document.querySelector('#plot-memory .line').getAttribute('d') !== ''");

      const large = { requests: { cpu: "1k" } };
      const spec = { containers: [{ name: "large", image: "x", resources: large }] };
      await machine.kubectl([
        "run",
        "large",
        "--image=x",
        `--overrides=${JSON.stringify({ spec })}`,
      ]);
      await page.until(shows("#pods .why", "no node takes it"), 30_000);
      assert.match(String(await page.evaluate(textOf("#pods-count"))), /, 1 without a node$/);
      await machine.kubectl(["delete", "pod", "large", "--grace-period=0", "--force"]);
      await page.until("document.querySelectorAll('#pods tbody').length === 3", 30_000);

      const ids = await ownContainers(machine);
      await agent.signal("TERM");
      assert.equal(await agent.exited, 0);
      await page.until("document.getElementById('main').className === 'old'", 30_000);
      assert.equal(await page.evaluate("document.querySelectorAll('#pods tbody').length"), 3);
      await remoraUp(machine);
      await page.until(shows("#live-label", "Live"), 30_000);
      await page.until(
        `${textOf("#pods tbody .tone")} === "Running|Running|Running" && document.getElementById('main').className === ''`,
        30_000,
      );
      assert.deepEqual(await ownContainers(machine), ids);

      await machine.kubectl(["delete", "-f", `${root}/examples/hello.yaml`, "--wait=false"]);
      await page.until("document.querySelectorAll('#pods tbody').length === 0", 60_000);
      assert.deepEqual(page.problems, []);
      await remoraDown(machine);
    } finally {
      await browser.close();
      await dashboard.stop();
    }
  });
});
