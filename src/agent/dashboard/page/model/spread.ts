interface Block {
  /** Sum of what its members want, each as the place of the block's first. */
  sum: number;
  count: number;
}

/**
 * Rows for things that want to be at `wanted`, in this order, one row apart at least and within `rows`: as near to what they
 * want as they can be together (least squares, by pooling neighbours that would overlap).
 */
export function spread(wanted: readonly number[], rows: number): readonly number[] {
  const blocks: Block[] = [];
  for (const [index, place] of wanted.entries()) {
    // In places less the number of things before it, "one row apart" is "not decreasing".
    blocks.push({ sum: place - index, count: 1 });
    for (;;) {
      const last = blocks.at(-1);
      const previous = blocks.at(-2);
      if (last === undefined || previous === undefined) break;
      if (previous.sum / previous.count <= last.sum / last.count) break;
      previous.sum += last.sum;
      previous.count += last.count;
      blocks.pop();
    }
  }
  const most = Math.max(rows - wanted.length, 0);
  return blocks
    .flatMap(({ sum, count }) => Array.from({ length: count }, () => sum / count))
    .map((place, index) => Math.min(Math.max(place, 0), most) + index);
}
