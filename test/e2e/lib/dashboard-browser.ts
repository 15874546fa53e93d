import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex, type Readable, type Writable } from "node:stream";

const programs = ["chromium", "chromium-browser", "google-chrome"];

/** A browser of this machine that really runs; packages of some distributions only lead to another shop. */
export function findBrowser(): string | undefined {
  for (const program of programs) {
    try {
      execFileSync(program, ["--version"], { stdio: "ignore", timeout: 20_000 });
      return program;
    } catch {
      // The next one.
    }
  }
  return undefined;
}

interface Message {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

type Fields = Readonly<Record<string, unknown>>;

/** A Chromium without a screen, driven over two pipes (Chrome DevTools Protocol). */
export class Browser {
  readonly #process: ChildProcess;
  readonly #profile: string;
  readonly #to: Writable;
  readonly #calls = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  readonly #pages = new Map<string, (method: string, params: Fields) => void>();
  readonly #contexts: unknown[] = [];
  #next = 1;
  #rest = "";

  private constructor(child: ChildProcess, profile: string, to: Writable, from: Readable) {
    this.#process = child;
    this.#profile = profile;
    this.#to = to;
    // A browser that ends fails the call that was under way.
    to.on("error", () => undefined);
    from.setEncoding("utf8");
    from.on("data", (text: string) => this.#receive(text));
    child.once("exit", () => {
      for (const { reject } of this.#calls.values()) reject(new Error("the browser has ended"));
      this.#calls.clear();
    });
  }

  static async start(program: string): Promise<Browser> {
    const profile = await mkdtemp(join(tmpdir(), "remora-browser-"));
    const child = spawn(
      program,
      [
        "--headless=new",
        // As root there is no sandbox; nothing but our own page is opened.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--remote-debugging-pipe",
        `--user-data-dir=${profile}`,
        "about:blank",
      ],
      { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true },
    );
    const [, , , to, from] = child.stdio;
    if (!(to instanceof Duplex) || !(from instanceof Duplex)) throw new TypeError("no pipes");
    const browser = new Browser(child, profile, to, from);
    await browser.call("Browser.getVersion");
    return browser;
  }

  async close(): Promise<void> {
    const ended = once(this.#process, "exit");
    await Promise.race([this.call("Browser.close").catch(() => undefined), ended]);
    const late = setTimeout(() => {
      if (this.#process.pid !== undefined) process.kill(-this.#process.pid, "SIGKILL");
    }, 5000);
    if (this.#process.exitCode === null && this.#process.signalCode === null) await ended;
    clearTimeout(late);
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  async call(
    method: string,
    params: Fields = {},
    sessionId?: string,
  ): Promise<Record<string, unknown>> {
    const id = this.#next;
    this.#next += 1;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    this.#calls.set(id, answer);
    this.#to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return answer.promise;
  }

  #receive(text: string): void {
    const messages = (this.#rest + text).split("\0");
    this.#rest = messages.pop() ?? "";
    for (const each of messages) {
      const message = JSON.parse(each) as Message;
      if (message.id === undefined) {
        this.#pages.get(message.sessionId ?? "")?.(message.method ?? "", message.params ?? {});
        continue;
      }
      const call = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (message.error !== undefined) call?.reject(new Error(message.error.message));
      else call?.resolve(message.result ?? {});
    }
  }

  /** Closes all tabs. */
  async closePages(): Promise<void> {
    this.#pages.clear();
    for (const browserContextId of this.#contexts.splice(0)) {
      await this.call("Target.disposeBrowserContext", { browserContextId });
    }
  }

  /** A tab with storage of its own. */
  async newPage(look: PageLook = {}): Promise<Page> {
    const { browserContextId } = await this.call("Target.createBrowserContext");
    this.#contexts.push(browserContextId);
    const { targetId } = await this.call("Target.createTarget", {
      url: "about:blank",
      browserContextId,
    });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const session = String(sessionId);
    const page = new Page(async (method, params) => this.call(method, params, session));
    this.#pages.set(session, (method, params) => page.hear(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network", "Audits"]) {
      await this.call(`${domain}.enable`, {}, session);
    }
    await page.look(look);
    return page;
  }
}

export interface PageLook {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

/** One tab. */
export class Page {
  readonly #call: (method: string, params?: Fields) => Promise<Record<string, unknown>>;
  /** What a developer would see in red: errors of the console, exceptions, violations of the content policy. */
  readonly problems: string[] = [];
  /** Addresses that were asked for. */
  readonly requests: string[] = [];

  constructor(call: (method: string, params?: Fields) => Promise<Record<string, unknown>>) {
    this.#call = call;
  }

  hear(method: string, params: Fields): void {
    const text = JSON.stringify(params);
    if (method === "Runtime.exceptionThrown") this.problems.push(text);
    if (method === "Runtime.consoleAPICalled" && /"type":"(error|warning|assert)"/.test(text)) {
      this.problems.push(text);
    }
    if (method === "Log.entryAdded" && /"level":"(error|warning)"/.test(text)) {
      this.problems.push(text);
    }
    if (method === "Audits.issueAdded" && text.includes("ContentSecurityPolicy")) {
      this.problems.push(text);
    }
    if (method === "Page.javascriptDialogOpening") {
      this.problems.push(text);
      void this.#call("Page.handleJavaScriptDialog", { accept: false });
    }
    if (method === "Network.requestWillBeSent") {
      const { request } = params as { readonly request?: { readonly url?: string } };
      this.requests.push(request?.url ?? "");
    }
  }

  async look({ width = 1280, height = 900, scheme = "light" }: PageLook): Promise<void> {
    await this.#call("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
    await this.#call("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: scheme }],
    });
  }

  async goto(url: string): Promise<void> {
    await this.#call("Page.navigate", { url });
  }

  async reload(): Promise<void> {
    await this.#call("Page.reload");
  }

  /** The value of an expression in the page. */
  async evaluate(expression: string): Promise<unknown> {
    const { exceptionDetails, result } = await this.#call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { readonly value?: unknown }).value;
  }

  /** Waits until an expression is true in the page. */
  async until(expression: string, timeoutMs = 15_000): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      // While the page is loaded anew there is nothing to ask.
      if ((await this.evaluate(expression).catch(() => false)) === true) return;
      if (performance.now() > end) {
        const text = await this.evaluate("document.body.innerText").catch(String);
        throw new Error(`never true: ${expression}\n${this.problems.join("\n")}\n${String(text)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  async press(key: string, text = ""): Promise<void> {
    await this.#call("Input.dispatchKeyEvent", {
      type: text === "" ? "rawKeyDown" : "keyDown",
      key,
      text,
    });
    await this.#call("Input.dispatchKeyEvent", { type: "keyUp", key });
  }

  async type(text: string): Promise<void> {
    await this.#call("Input.insertText", { text });
  }

  /** A picture of the whole page. */
  async screenshot(path: string): Promise<void> {
    const { data } = await this.#call("Page.captureScreenshot", {
      format: "png",
      captureBeyondViewport: true,
    });
    await writeFile(path, Buffer.from(String(data), "base64"));
  }
}
