// Entry of the process that walks large volumes; see ownership.ts.
import { runOwnershipChild } from "./ownership-report.ts";

void runOwnershipChild();
