#!/bin/sh
# Runs as init of user-mode-linux, on the host's files.
export PATH=/usr/sbin:/sbin:/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /run
modules=/usr/lib/uml/modules/$(uname -r)/kernel/drivers/md
for module in dm-mod dm-log-writes; do insmod "$modules/$module.ko"; done
dmsetup create logged --noudevsync \
  --table "0 $(blockdev --getsz /dev/ubda) log-writes /dev/ubda /dev/ubdb"
dmsetup mknodes
mkfs.ext4 -q -F -b 4096 -N 2048 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0 \
  /dev/mapper/logged
mkdir -p /run/disk
mount -o noatime /dev/mapper/logged /run/disk
sync
dmsetup message logged 0 mark mounted
cd /run
TAPGATE_POWERCUT_DISK=/run/disk TAPGATE_POWERCUT_PROMISES=@PLACE@/promises \
  TAPGATE_POWERCUT_LEAVE_OUT=@LEAVE_OUT@ \
  @BINARY@ --ignored --exact powercut::works --nocapture && echo WORKED
exec /bin/busybox poweroff -f
