#!/bin/sh -e
# Defines the domain `old-web`, as somebody did before novella came. It is not started.
mkdir -p /var/lib/libvirt/images && qemu-img convert -O qcow2 target/guest/disk.qcow2 /var/lib/libvirt/images/old-web.qcow2
sed "s|GUEST|$PWD/target/guest|" examples/import/old-web.xml | virsh define /dev/stdin
