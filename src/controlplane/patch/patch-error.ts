/**
 * A patch that cannot be applied. `status` is 400 when the patch itself is malformed, 422 when it does not fit the
 * object.
 */
export class PatchError extends Error {
  override readonly name = "PatchError";
  readonly status: 400 | 422;

  constructor(status: 400 | 422, message: string) {
    super(message);
    this.status = status;
  }
}
