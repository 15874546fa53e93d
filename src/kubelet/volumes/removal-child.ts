// Entry of the process that removes large volumes; see remove-tree.ts.
import { runRemovalChild } from "./removal-report.ts";

void runRemovalChild();
