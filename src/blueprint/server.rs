//! Servers become disks and domains.

use crate::address::{Address, PortId, ResourceKind};
use crate::blueprint::hardware::Hardware;
use crate::blueprint::identity::Identity;
use crate::blueprint::image::base;
use crate::blueprint::key::{disk_key, domain_key};
use crate::blueprint::network::Plugs;
use crate::blueprint::object::{BaseRole, DirectBoot, Domain, Nic, Object, VirtType};
use crate::blueprint::{Blueprint, Context, HostFacts, ignore, root_disk, seed, volume};
use crate::desired::Desired;
use crate::desired::{Image, Port, Server};
use crate::plan::world::Recorded;
use crate::spec::values::VirtTypeSpec;

pub(super) fn lower(server: &Server, context: &Context<'_>, plugs: &Plugs, blueprint: &mut Blueprint) {
    let Context { desired, layout, .. } = context;
    let (Some(image), Some(flavor)) = (desired.images.get(&server.image), desired.flavors.get(&server.flavor)) else {
        // A valid spec has both.
        return;
    };
    let name = &server.name;
    let ports = server.ports.iter().filter_map(|id| desired.ports.get(id));
    let nic = |port: &Port| {
        let (bridge, mtu) = plugs.get(&port.network)?;
        Some(Nic {
            network: port.network.clone(),
            port: match &port.id {
                PortId::Own(name) => Some(name.clone()),
                PortId::Inline { .. } => None,
            },
            bridge: bridge.clone(),
            tap: Identity::tap(context.identity.port(&port.id)),
            mac: context.ipam.ports.get(&port.id)?.mac,
            mtu: *mtu,
            unplugged: !port.up,
        })
    };
    let nics = ports.filter_map(nic).collect();
    let (disk, generation) = root_disk::choose(server, (image, flavor), context, blueprint);
    // One that was imported stays what it was.
    let imported = ignore::made(name, context.recorded).filter(|made| made.imported);
    let derived = || context.identity.resource(&Address::new(ResourceKind::Server, name.clone()));
    let uuid = imported.map_or_else(derived, |made| made.uuid);
    let is_new = root_disk::is_new_to(context.recorded.records.get(&domain_key(name)), &disk);
    let seed = seed::lower(server, seed::Guest { uuid, generation, is_new }, context, blueprint);
    let mut domain = Domain {
        server: name.clone(),
        project: desired.project.clone(),
        name: imported.map_or_else(|| format!("{}.{name}", desired.project), |made| made.name.clone()),
        uuid,
        imported: imported.is_some(),
        virt_type: virt_type(server, desired, context.recorded, context.host),
        vcpus: flavor.vcpus,
        max_vcpus: flavor.max_vcpus,
        memory: flavor.ram,
        max_memory: flavor.max_ram,
        hardware: Hardware {
            firmware: image.firmware,
            nvram: imported
                .filter(|made| made.hardware.firmware == image.firmware)
                .map_or_else(|| layout.nvram(name.as_str(), image.firmware), |made| made.hardware.nvram.clone()),
            tpm: image.tpm,
            cpu: flavor.cpu.clone(),
        },
        disk: disk.path.clone(),
        disk_format: disk.format,
        base: disk.base.clone(),
        root_disk: server.root_disk,
        disks: volume::disks(server, context, blueprint),
        nics,
        boot: direct_boot(image, context),
        seed,
        console_log: layout.console_log(name.as_str()),
        power: server.power,
        depends_on: server.depends_on.clone(),
        shutdown_timeout: server.shutdown_timeout,
    };
    ignore::keep(server, is_new, &mut domain, context, blueprint);
    if context.replace.contains(name) {
        blueprint.requested.insert(disk_key(name));
    }
    if server.lifecycle.prevent_destroy {
        blueprint.guarded.insert(domain_key(name));
    }
    if server.is_made_beside() {
        blueprint.beside.insert(disk_key(name));
    }
    blueprint.add(Object::Disk(disk));
    blueprint.add(Object::Domain(domain));
}

/// How a server is run. `auto` means what works when the server is made; a guest is not restarted because that changes.
pub(super) fn virt_type(server: &Server, desired: &Desired, recorded: &Recorded, host: &HostFacts) -> VirtType {
    match (desired.host.virt_type, ignore::made(&server.name, recorded)) {
        (VirtTypeSpec::Kvm, _) => VirtType::Kvm,
        (VirtTypeSpec::Qemu, _) => VirtType::Qemu,
        (VirtTypeSpec::Auto, Some(made)) => made.virt_type,
        (VirtTypeSpec::Auto, _) => host.virt_type,
    }
}

fn direct_boot(image: &Image, context: &Context<'_>) -> Option<DirectBoot> {
    let cached = |file, role| {
        let base = base(&image.name, file, role, None, context);
        (base.id, base.path)
    };
    Some(DirectBoot {
        kernel: cached(image.kernel.as_ref()?, BaseRole::Kernel),
        initrd: image.initrd.as_ref().map(|initrd| cached(initrd, BaseRole::Initrd)),
        cmdline: image.cmdline.clone(),
    })
}
