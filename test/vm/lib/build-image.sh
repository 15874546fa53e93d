#!/bin/sh
# build-image.sh DIRECTORY MIRROR: a Debian 12 machine as qemu boots it without a boot loader. Leaves in DIRECTORY
# root.img (sparse), vmlinuz and initrd.gz. Runs in mount and process namespaces of its own (image.ts sees to that): what
# debootstrap mounts and starts is gone when this script is, however it ends.
set -eu
directory=$1
mirror=$2
rootfs=$directory/rootfs

# systemd-networkd is part of systemd. dbus: Docker's systemd cgroup driver and the agent talk over it.
# apparmor: Docker runs nothing on a kernel with AppArmor before its parser is there. libatomic1: the pinned Node links it.
packages=systemd,systemd-sysv,dbus,udev,kmod,util-linux,procps,iproute2,nftables,iptables,conntrack
packages=$packages,docker.io,apparmor,ca-certificates,libatomic1,libstdc++6,busybox-static,qemu-guest-agent
packages=$packages,linux-image-cloud-amd64
# Servers and clients of volumes; started by the check that needs them.
packages=$packages,nfs-kernel-server,nfs-common,tgt,open-iscsi,quota

debootstrap --variant=minbase --include="$packages" bookworm "$rootfs" ${mirror:+"$mirror"}

echo machine >"$rootfs/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 machine\n::1 localhost\n' >"$rootfs/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$rootfs/etc/fstab"
# Empty: every machine makes up its own at boot. D-Bus keeps a copy that systemd would take instead.
: >"$rootfs/etc/machine-id"
rm -f "$rootfs/var/lib/dbus/machine-id"
# What qemu's own network expects of the first card. A default route must be there: without one the kernel refuses virtual
# IPs before any rule sees them.
cat >"$rootfs/etc/systemd/network/eth0.network" <<'UNIT'
[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
UNIT
echo 'nameserver 10.0.2.3' >"$rootfs/etc/resolv.conf"
chroot "$rootfs" systemctl enable systemd-networkd.service qemu-guest-agent.service
# Timers and services for machines that live longer than a minute.
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer logrotate.timer \
  systemd-tmpfiles-clean.timer e2scrub_reap.service systemd-pstore.service systemd-networkd-wait-online.service \
  systemd-timesyncd.service systemd-random-seed.service; do
  ln -sf /dev/null "$rootfs/etc/systemd/system/$unit"
done
for unit in nfs-server.service nfs-client.target nfs-blkmap.service rpcbind.socket rpcbind.service rpc-statd.service \
  tgt.service open-iscsi.service iscsid.service iscsid.socket quota.service quotarpc.service; do
  chroot "$rootfs" systemctl disable "$unit" || true
done
rm -rf "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/log/*.log \
  "$rootfs"/usr/share/doc/* "$rootfs"/usr/share/man/* "$rootfs"/usr/share/locale/* "$rootfs"/boot/initrd.img-*

# An initrd of the disk's driver and switch_root: Debian's own takes several times as long in software emulation.
kernel=$(ls "$rootfs/lib/modules")
initrd=$directory/initrd
mkdir -p "$initrd/bin" "$initrd/proc" "$initrd/sys" "$initrd/dev" "$initrd/root"
cp "$rootfs/bin/busybox" "$initrd/bin/"
ln -s busybox "$initrd/bin/sh"
modules=
for name in virtio_pci virtio_blk; do
  for file in $(chroot "$rootfs" modprobe -S "$kernel" --show-depends "$name" | awk '$1 == "insmod" { print $2 }'); do
    module=$(basename "$file")
    case " $modules " in *" $module "*) continue ;; esac
    cp "$rootfs$file" "$initrd/"
    modules="$modules $module"
  done
done
cat >"$initrd/init" <<INIT
#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in $modules; do busybox insmod /\$module; done
tries=0
until [ -b /dev/vda ] || [ \$tries = 100 ]; do busybox usleep 100000; tries=\$((tries + 1)); done
busybox mount -t ext4 -o noatime /dev/vda /root || exec sh
busybox mount --move /dev /root/dev
busybox umount /proc /sys
exec busybox switch_root /root /lib/systemd/systemd
INIT
chmod 755 "$initrd/init"
(cd "$initrd" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$directory/initrd.gz"
cp "$rootfs/boot/vmlinuz-$kernel" "$directory/vmlinuz"

# Filled without being mounted. Checksums of metadata cost time in emulation and nothing outlives a run.
truncate -s 8G "$directory/root.img"
mke2fs -q -t ext4 -O ^metadata_csum,^64bit -E lazy_itable_init=1,lazy_journal_init=1 -d "$rootfs" "$directory/root.img"
rm -rf "$rootfs" "$initrd"
