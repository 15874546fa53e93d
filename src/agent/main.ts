import { fail } from "./cli/ending.ts";
import { remoraProgram } from "./cli/program.ts";

// What is written for everybody to read (volumes, /etc/hosts of pods) must not depend on who started us.
process.umask(0o022);

remoraProgram().parseAsync().catch(fail);
