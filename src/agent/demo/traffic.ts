import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../../lib/errors.ts";
import type { LineSession } from "./cluster-tool.ts";
import { type Answer, parseAnswer, Tally } from "./tally.ts";

/** No request takes that long that is answered at all: two tries of the resolver, or four of TCP. */
const answerMs = 15_000;
/** Between two requests of the background: about fifty a second leave a small machine room for the rest. */
const pauseMs = 10;

/** Requests from inside the frontend, one at a time, each by the Service's name and on a connection of its own. */
export class Traffic {
  readonly #session: LineSession;
  readonly #clock: Clock;

  constructor(session: LineSession, clock: Clock) {
    this.#session = session;
    this.#clock = clock;
  }

  /** One request. @throws {SetupError} when it hangs, or when the session itself is gone. */
  async ask(signal: AbortSignal): Promise<Answer> {
    try {
      return parseAnswer(await this.#session.exchange("", deadline(signal, answerMs)));
    } catch (error) {
      signal.throwIfAborted();
      if (!isAbort(error)) throw error;
      throw new SetupError(`a request to the backend hangs for ${answerMs / 1000} s`, {
        cause: error,
      });
    }
  }

  /**
   * Goes on asking while `work` runs, and one request beyond it.
   *
   * @param each Called after every answer.
   * @returns the tally, and what `work` returned.
   * @throws what `work` threw, or what ended the session.
   */
  async during<T>(
    work: (signal: AbortSignal) => Promise<T>,
    each: (answer: Answer, tally: Tally) => void,
    signal: AbortSignal,
  ): Promise<{ readonly tally: Tally; readonly value: T }> {
    const tally = new Tally();
    const broken = new AbortController();
    const both = AbortSignal.any([signal, broken.signal]);
    const over = new AbortController();
    const asking = async (): Promise<void> => {
      try {
        do {
          const answer = await this.ask(signal);
          tally.add(answer);
          each(answer, tally);
          await this.#clock.sleep(pauseMs, signal);
        } while (!over.signal.aborted);
      } catch (error) {
        // The work must not go on without those who watch it.
        broken.abort(error);
        throw error;
      }
    };
    const background = asking();
    // Awaited below in every case; this keeps an early failure from counting as unhandled.
    background.catch((error: unknown) => errorMessage(error));
    try {
      const value = await work(both);
      over.abort();
      await background;
      return { tally, value };
    } finally {
      over.abort();
      await background.catch(() => undefined);
    }
  }
}
