import { draw, make, mark, part, say } from "./elements.ts";
import { formatAge, formatBytes, formatCores, formatRate, formatShare } from "./model/format.ts";
import type { UsagePoint } from "./model/messages.ts";
import { type Frame, nearest, niceCeiling, pathsOf, windowOf, xOf, yOf } from "./model/plot.ts";
import type { PageState } from "./model/state.ts";

type Member = 1 | 2 | 3 | 4 | 5;

interface Series {
  readonly index: Member;
  /** In front of the value, where there are two. */
  readonly label: string;
}

interface Kind {
  readonly id: string;
  readonly title: string;
  readonly series: readonly Series[];
  readonly base: 10 | 1024;
  readonly format: (value: number) => string;
  /** Undefined where nothing is used up. */
  readonly capacity: (state: PageState) => number | undefined;
}

const kinds: readonly Kind[] = [
  {
    id: "cpu",
    title: "CPU",
    series: [{ index: 1, label: "" }],
    base: 10,
    format: (value) => `${formatCores(value)} ${value === 1 ? "core" : "cores"}`,
    capacity: ({ snapshot }) => snapshot?.usage.cpuCapacity,
  },
  {
    id: "memory",
    title: "Memory",
    series: [{ index: 2, label: "" }],
    base: 1024,
    format: formatBytes,
    capacity: ({ snapshot }) => snapshot?.usage.memoryCapacity,
  },
  {
    id: "disk",
    title: "Disk",
    series: [{ index: 3, label: "" }],
    base: 1024,
    format: formatBytes,
    capacity: ({ snapshot }) => snapshot?.usage.disk.capacity,
  },
  {
    id: "network",
    title: "Network",
    series: [
      { index: 4, label: "in" },
      { index: 5, label: "out" },
    ],
    base: 10,
    format: formatRate,
    capacity: () => undefined,
  },
];

const height = 76;

/** One plot. What the pointer or the arrow keys are at is told where the newest value is otherwise. */
class Plot {
  readonly element: HTMLElement;
  readonly #kind: Kind;
  readonly #values: readonly HTMLElement[];
  readonly #note = make("span", { class: "note" });
  readonly #bar = make("i");
  readonly #meter = make("div", { class: "meter", "aria-hidden": "true" }, this.#bar);
  readonly #top = make("span", { class: "top", "aria-hidden": "true" });
  readonly #from = make("span", { "aria-hidden": "true" });
  readonly #areas: readonly SVGPathElement[];
  readonly #lines: readonly SVGPathElement[];
  readonly #cursor = draw("line", { class: "cursor", y1: 0, y2: height, visibility: "hidden" });
  readonly #dots: readonly SVGCircleElement[];
  readonly #svg: SVGSVGElement;
  #width = 300;
  #points: readonly UsagePoint[] = [];
  #capacity: number | undefined;
  #now = 0;
  /** Seconds; the moment that is looked at. */
  #at: number | undefined;

  constructor(kind: Kind) {
    this.#kind = kind;
    const several = kind.series.length > 1;
    this.#values = kind.series.map(() => make("b"));
    this.#areas = kind.series.map((_, index) => draw("path", { class: `area s${index}` }));
    this.#lines = kind.series.map((_, index) => draw("path", { class: `line s${index}` }));
    this.#dots = kind.series.map((_, index) =>
      draw("circle", { class: `dot s${index}`, r: 3.5, visibility: "hidden" }),
    );
    this.#svg = draw(
      "svg",
      { role: "img", tabindex: 0, height, preserveAspectRatio: "none" },
      draw("line", { class: "grid", x1: 0, x2: "100%", y1: 0.5, y2: 0.5 }),
      draw("line", { class: "grid", x1: 0, x2: "100%", y1: height / 2, y2: height / 2 }),
      draw("line", { class: "grid base", x1: 0, x2: "100%", y1: height - 0.5, y2: height - 0.5 }),
      ...this.#areas,
      ...this.#lines,
      this.#cursor,
      ...this.#dots,
    );
    const figures = kind.series.map(({ label }, index) =>
      make(
        "span",
        { class: "value" },
        ...(several
          ? [make("i", { class: `key s${index}`, "aria-hidden": "true" }), label, " "]
          : []),
        this.#values[index] ?? "",
      ),
    );
    this.element = make(
      "div",
      { class: "card plot", id: `plot-${kind.id}` },
      make("h2", {}, kind.title),
      make("p", {}, ...figures, this.#note),
      this.#meter,
      make("div", { class: "chart" }, this.#top, this.#svg),
      make("div", { class: "axis" }, this.#from, make("span", { "aria-hidden": "true" }, "now")),
    );
    this.#listen();
  }

  #listen(): void {
    this.#svg.addEventListener("pointermove", ({ offsetX }) => {
      this.#look(nearest(this.#points, offsetX, this.#frame())?.[0]);
    });
    this.#svg.addEventListener("pointerleave", () => this.#look(undefined));
    this.#svg.addEventListener("blur", () => this.#look(undefined));
    this.#svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") this.#look(undefined);
      if (step === undefined) return;
      event.preventDefault();
      const index = this.#points.findIndex(([time]) => time === this.#at);
      const next = index < 0 ? this.#points.length - 1 : index + step;
      this.#look(this.#points[Math.min(Math.max(next, 0), this.#points.length - 1)]?.[0]);
    });
    new ResizeObserver(() => {
      this.#width = this.#svg.clientWidth || this.#width;
      this.#draw();
    }).observe(this.#svg);
  }

  #look(at: number | undefined): void {
    if (this.#at === at) return;
    this.#at = at;
    this.#draw();
  }

  update(state: PageState, now: number): void {
    this.#points = state.usage;
    this.#capacity = this.#kind.capacity(state);
    this.#now = now;
    this.#draw();
  }

  #frame(): Frame {
    const { series, base } = this.#kind;
    const largest = Math.max(
      0,
      ...series.flatMap(({ index }) => this.#points.map((point) => point[index])),
    );
    return {
      width: this.#width,
      height: height - 1,
      end: this.#points.at(-1)?.[0] ?? 0,
      span: windowOf(this.#points),
      ceiling: niceCeiling(largest, base),
    };
  }

  #draw(): void {
    const { format, series, title } = this.#kind;
    const frame = this.#frame();
    for (const [at, { index }] of series.entries()) {
      const { area, line } = pathsOf(this.#points, index, frame);
      this.#areas[at]?.setAttribute("d", area);
      this.#lines[at]?.setAttribute("d", line);
    }
    const looked = this.#points.find(([time]) => time === this.#at);
    const point = looked ?? this.#points.at(-1);
    this.#point(looked, frame);
    const texts = series.map(({ index }) => (point === undefined ? "-" : format(point[index])));
    for (const [index, value] of this.#values.entries()) say(value, texts[index] ?? "");
    const used = point?.[series[0]?.index ?? 1] ?? 0;
    const capacity = this.#capacity ?? 0;
    this.#meter.hidden = !(capacity > 0);
    const share = formatShare(used, capacity);
    this.#bar.style.width = `${capacity > 0 ? Math.min((used / capacity) * 100, 100) : 0}%`;
    mark(this.#meter, "data-tone", used > capacity * 0.9 ? "bad" : "good");
    const whole = share === "" ? "" : `${share} of ${format(capacity)}`;
    const when = looked === undefined ? "" : `${formatAge(this.#now - looked[0] * 1000)} ago`;
    say(this.#note, when === "" ? whole : when);
    say(this.#top, this.#points.length === 0 ? "" : format(frame.ceiling));
    say(this.#from, `${frame.span / 60} min ago`);
    const words = series.map(({ label }, index) => `${label} ${texts[index] ?? ""}`.trim());
    mark(
      this.#svg,
      "aria-label",
      `${title}: ${[...words, whole, when].filter(Boolean).join(", ")}`,
    );
  }

  #point(looked: UsagePoint | undefined, frame: Frame): void {
    const visibility = looked === undefined ? "hidden" : "visible";
    const x = looked === undefined ? 0 : xOf(looked[0], frame);
    this.#cursor.setAttribute("visibility", visibility);
    this.#cursor.setAttribute("x1", String(x));
    this.#cursor.setAttribute("x2", String(x));
    for (const [at, dot] of this.#dots.entries()) {
      const index = this.#kind.series[at]?.index ?? 1;
      dot.setAttribute("visibility", visibility);
      dot.setAttribute("cx", String(x));
      dot.setAttribute("cy", String(yOf(looked?.[index] ?? 0, frame)));
    }
  }
}

/** The plots of CPU, memory, disk and network over the last hour. */
export function createPlots(): (state: PageState, now: number) => void {
  const plots = kinds.map((kind) => new Plot(kind));
  part("plots", HTMLElement).append(...plots.map(({ element }) => element));
  return (state, now) => {
    for (const plot of plots) plot.update(state, now);
  };
}
