/** What the machine is made of, parsed from the inventory. Unknown texts are empty, unknown numbers undefined. */
export interface Hardware {
  readonly cpu: {
    readonly vendor: string;
    readonly model: string;
    readonly family: string;
    readonly cores: number | undefined;
    readonly flags: readonly string[];
  };
  readonly memoryBytes: number | undefined;
  readonly disks: readonly {
    readonly device: string;
    readonly model: string;
    readonly kind: "nvme" | "ssd" | "hdd" | "unknown";
    readonly sizeBytes: number | undefined;
  }[];
  readonly gpus: readonly { readonly vendor: string; readonly model: string }[];
  readonly nics: readonly {
    readonly name: string;
    readonly mac: string;
    readonly speedMbps: number | undefined;
    readonly virtual: boolean;
  }[];
  readonly firmware: {
    readonly kind: "uefi" | "bios";
    readonly vendor: string;
    readonly version: string;
    readonly date: string;
  };
  readonly system: { readonly manufacturer: string; readonly model: string };
  /** `none` on bare metal, else the hypervisor in lower case. */
  readonly virtualisation: string;
}
