// Entry of the inventory process when running from source; see hardware.ts.
import { writeHardwareInventory } from "./hardware-inventory.ts";

void writeHardwareInventory();
