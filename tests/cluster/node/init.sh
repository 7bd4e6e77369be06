#!/bin/bash
# The node's first process, in mount, network, process, host name and IPC namespaces of its own: what it mounts and
# sets is seen by nobody else, and when it ends, everything in them ends with it.
#   init.sh WORK_FOLDER NODE_ADDRESS < what the node's life depends on: it ends when this standard input does
set -euo pipefail
work=$1 address=$2
read -r pid _ </proc/self/stat # still the machine's /proc, so this is the number that the machine knows
echo "$pid" >"$work/pid"

mount --make-rprivate /
# A new sysfs shows this network namespace; the machine's cgroups are carried over into it.
mount -t tmpfs none /mnt
mkdir /mnt/cgroup
mount --rbind /sys/fs/cgroup /mnt/cgroup
mount -t sysfs sysfs /sys
mount --rbind /mnt/cgroup /sys/fs/cgroup
umount -l /mnt/cgroup /mnt
mount -t proc proc /proc
mount -t tmpfs -o mode=755 none /run # sockets, locks, network namespaces of pods
# Folders whose names are fixed in the kubelet and in the network plugins.
mount --bind "$work/kubelet" /var/lib/kubelet
for folder in /var/lib/cni /var/log/containers /var/log/pods; do mount -t tmpfs -o mode=755 none "$folder"; done
mount --make-rshared /

# The kubelet wants to set these for the whole machine; it sets copies of them instead.
mkdir /run/sysctl
fake() {
    [ -e "/proc/sys/$1" ] || return 0
    echo "$2" >"/run/sysctl/${1//\//_}"
    mount --bind "/run/sysctl/${1//\//_}" "/proc/sys/$1"
}
fake vm/overcommit_memory 1
fake vm/panic_on_oom 0
fake kernel/panic 10
fake kernel/panic_on_oops 1
fake kernel/keys/root_maxkeys 1000000
fake kernel/keys/root_maxbytes 25000000

hostname testnode
ip link set lo up
touch "$work/waiting" # for the machine's end of the cable
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "${address%.*}.1" # the machine forwards nothing, so this leads nowhere but to itself
touch "$work/ready"
while read -r _; do :; done
