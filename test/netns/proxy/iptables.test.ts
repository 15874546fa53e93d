import { insideOwnNamespace } from "../namespace.ts";
import { packetTests } from "./packet-tests.ts";

if (insideOwnNamespace(import.meta.filename)) packetTests("iptables");
