import { promisify } from "node:util";
import { gzip } from "node:zlib";

import { tarFile } from "../../runtime/docker/tar.ts";

/** A file of a bundle. */
export interface BundleFile {
  /** At most 100 bytes, with folders. */
  readonly name: string;
  readonly text: string;
}

const endBytes = 1024;
const compress = promisify(gzip);

/** The files as a tar.gz; readable by their owner only. */
export async function archive(files: readonly BundleFile[]): Promise<Buffer> {
  const parts = files.map(({ name, text }) => {
    const one = tarFile(name, Buffer.from(text, "utf8"), 0o600);
    return one.subarray(0, one.length - endBytes);
  });
  return compress(Buffer.concat([...parts, Buffer.alloc(endBytes)]));
}
