import assert from "node:assert/strict";

import type { Check } from "../check.ts";
import { runs } from "../lib/manifests.ts";
import type { Node } from "../lib/node.ts";

const exported = "/etc/exports.d/test.exports";
const iqn = "iqn.2026-01.example:machine";
const password = "a-word-of-sixteen";
const byPath = `/dev/disk/by-path/ip-127.0.0.1:3260-iscsi-${iqn}-lun-1`;

const container = { volumeMounts: [{ name: "data", mountPath: "/data" }] };

function onServer(name: string): ReturnType<typeof runs> {
  return runs(
    name,
    { one: container },
    { volumes: [{ name: "data", nfs: { server: "127.0.0.1", path: "/srv/export" } }] },
  );
}

function onDisk(name: string): ReturnType<typeof runs> {
  const iscsi = {
    targetPortal: "127.0.0.1",
    iqn,
    lun: 1,
    fsType: "ext4",
    chapAuthSession: true,
    secretRef: { name: "chap" },
  };
  return runs(name, { one: container }, { volumes: [{ name: "data", iscsi }] });
}

const volumes = "/var/lib/remora/volumes";
/** Of the claim, in MiB. */
const size = 8;

/** Runs a script in the pod's container. */
async function inPod(node: Node, name: string, script: string): Promise<string> {
  const { status } = await node.podReady(name);
  const id = status?.containerStatuses?.[0]?.containerID?.replace("docker://", "") ?? "";
  return (await node.machine.exec(["docker", "exec", id, "sh", "-c", script])).stdout.trim();
}

/** Volumes of servers and of disks over the network, with Debian's own programs and kernel. */
export const storageChecks: readonly Check[] = [
  {
    name: "an NFS volume is what the server exports, and a server that died keeps no pod from going",
    prepare: async ({ machine }) => {
      await machine.sh(`mkdir -p /srv/export /etc/exports.d
        echo '/srv/export 127.0.0.1(rw,no_root_squash,insecure,no_subtree_check)' >${exported}
        systemctl start nfs-server.service`);
    },
    objects: [onServer("on-server")],
    run: async (node) => {
      const { machine } = node;
      await inPod(node, "on-server", "echo hello >/data/file");
      assert.equal(await machine.sh("cat /srv/export/file"), "hello");
      // Requests to it are lost from here on, without a word.
      await machine.sh(`nft add table ip away
        nft 'add chain ip away out { type filter hook output priority 0; }'
        nft add rule ip away out oifname lo tcp dport 2049 drop`);
      try {
        await node.create(runs("beside", { one: {} }));
        await node.delete("Pod", "on-server");
        await node.podReady("beside");
        await node.until("the pod is gone", async () => {
          const left = (await node.pods()).some(({ metadata }) => metadata?.name === "on-server");
          return left ? undefined : true;
        });
      } finally {
        await machine.sh("nft delete table ip away");
      }
      assert.equal(await machine.sh("grep /var/lib/remora/.*nfs /proc/mounts || true"), "");
      assert.equal(await machine.sh("cat /srv/export/file"), "hello");
      await machine.sh(`systemctl stop nfs-server.service nfs-mountd.service nfs-idmapd.service \\
          nfsdcld.service rpc-statd.service rpcbind.service rpcbind.socket || true
        umount /proc/fs/nfsd /run/rpc_pipefs; rm ${exported}`);
    },
  },
  {
    name: "an iSCSI disk is logged in to with its secret, keeps its data, and is let go with its last pod",
    prepare: async ({ machine }) => {
      await machine.sh(`truncate -s 64M /var/tmp/lun.img
        systemctl start tgt.service iscsid.service
        tgtadm --lld iscsi --mode target --op new --tid 1 -T ${iqn}
        tgtadm --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b /var/tmp/lun.img
        tgtadm --lld iscsi --mode target --op bind --tid 1 -I ALL
        tgtadm --lld iscsi --mode account --op new --user pods --password ${password}
        tgtadm --lld iscsi --mode account --op bind --tid 1 --user pods`);
    },
    objects: [
      {
        kind: "Secret",
        metadata: { name: "chap" },
        type: "kubernetes.io/iscsi-chap",
        stringData: {
          "node.session.auth.username": "pods",
          "node.session.auth.password": password,
        },
      },
      onDisk("on-disk"),
    ],
    run: async (node) => {
      const { machine } = node;
      assert.equal(await inPod(node, "on-disk", "echo kept >/data/file; cat /data/file"), "kept");
      assert.match(await machine.sh("iscsiadm -m session"), new RegExp(iqn));
      assert.match(await machine.sh(`blkid -p ${byPath}`), /TYPE="ext4"/);
      await node.delete("Pod", "on-disk");
      const gone = async (): Promise<true | undefined> => {
        const left = await machine.sh(`iscsiadm -m session 2>/dev/null || true
          ls ${byPath} 2>/dev/null || true
          grep -rl ${password} /etc/iscsi || true
          ls /var/lib/remora/kubelet/plugins/kubernetes.io/iscsi`);
        return left === "" ? true : undefined;
      };
      await node.until("nothing of the disk is left", gone);
      await node.create(onDisk("on-disk-again"));
      assert.equal(await inPod(node, "on-disk-again", "cat /data/file"), "kept");
      await node.delete("Pod", "on-disk-again");
      await node.until("nothing of the disk is left again", gone);
      // iscsiadm keeps whom it has asked for targets, as it does for every kubelet.
      await machine.sh(`iscsiadm -m discoverydb -t sendtargets -p 127.0.0.1:3260 -o delete || true
        systemctl stop tgt.service iscsid.service iscsid.socket || true`);
    },
  },
  {
    name: "a claim on a file system with project quota gets no more bytes than it asked for",
    prepare: async ({ machine }) => {
      await machine.sh(`truncate -s 128M /var/tmp/quota.img
        mkfs.ext4 -q -O quota,project -E quotatype=prjquota /var/tmp/quota.img
        mkdir -p ${volumes}
        mount -o loop,prjquota /var/tmp/quota.img ${volumes}`);
    },
    objects: [
      {
        kind: "PersistentVolumeClaim",
        metadata: { name: "small" },
        spec: {
          accessModes: ["ReadWriteOnce"],
          resources: { requests: { storage: `${size}Mi` } },
        },
      },
      runs(
        "in-small",
        { one: container },
        { volumes: [{ name: "data", persistentVolumeClaim: { claimName: "small" } }] },
      ),
    ],
    run: async (node) => {
      const { machine } = node;
      const write = (megabytes: number): Promise<string> =>
        inPod(
          node,
          "in-small",
          `dd if=/dev/zero of=/data/file bs=1M count=${megabytes} 2>&1; stat -c %s /data/file`,
        );
      assert.match(await write(size / 2), new RegExp(`${(size / 2) * 1024 * 1024}$`));
      const beyond = await write(2 * size);
      assert.match(beyond, /quota exceeded|No space left/i);
      assert.ok(Number(beyond.split("\n").at(-1)) <= size * 1024 * 1024, beyond);
      await node.delete("Pod", "in-small");
      await node.delete("PersistentVolumeClaim", "small");
      await node.until("data and limit are gone", async () => {
        const left = await machine.sh(`find ${volumes} -mindepth 1 -not -name lost+found
          repquota -P -n ${volumes} | awk '/^#[1-9]/ && $5 > 0'`);
        return left === "" ? true : undefined;
      });
      await machine.sh(`umount ${volumes}; rm /var/tmp/quota.img`);
    },
  },
];
