//! Servers become disks and domains.

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::hardware::Hardware;
use crate::blueprint::identity::Identity;
use crate::blueprint::image::{base, disk_base};
use crate::blueprint::key::{base_key, disk_key, domain_key};
use crate::blueprint::network::Plugs;
use crate::blueprint::object::{BaseRef, BaseRole, DirectBoot, Disk, Domain, Nic, Object, VirtType};
use crate::blueprint::{Blueprint, Context, HostFacts, seed, volume};
use crate::desired::Desired;
use crate::desired::{Image, Port, Server};
use crate::plan::world::Recorded;
use crate::spec::values::{OnUserDataChange, VirtTypeSpec};

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
    let base = root_base(server, image, context, blueprint);
    blueprint.add(Object::Disk(Disk {
        server: name.clone(),
        image: image.name.clone(),
        path: layout.disk(name.as_str()),
        base: base.clone(),
        size: flavor.disk,
        user_data: made_with(server, context),
    }));
    let uuid = context.identity.resource(&Address::new(ResourceKind::Server, name.clone()));
    let seed = seed::lower(server, uuid, context, blueprint);
    blueprint.add(Object::Domain(Domain {
        server: name.clone(),
        project: desired.project.clone(),
        name: format!("{}.{name}", desired.project),
        uuid,
        virt_type: virt_type(server, desired, context.recorded, context.host),
        vcpus: flavor.vcpus,
        max_vcpus: flavor.max_vcpus,
        memory: flavor.ram,
        max_memory: flavor.max_ram,
        hardware: Hardware {
            firmware: image.firmware,
            nvram: layout.nvram(name.as_str(), image.firmware),
            tpm: image.tpm,
            cpu: flavor.cpu.clone(),
        },
        disk: layout.disk(name.as_str()),
        base,
        root_disk: server.root_disk,
        disks: volume::disks(server, context, blueprint),
        nics,
        boot: direct_boot(image, context),
        seed,
        console_log: layout.console_log(name.as_str()),
        power: server.power,
        depends_on: server.depends_on.clone(),
        shutdown_timeout: server.shutdown_timeout,
    }));
}

/// How a server is run. `auto` means what works when the server is made; a guest is not restarted because that changes.
pub(super) fn virt_type(server: &Server, desired: &Desired, recorded: &Recorded, host: &HostFacts) -> VirtType {
    let made = recorded.records.get(&domain_key(&server.name)).map(|record| &record.object);
    match (desired.host.virt_type, made) {
        (VirtTypeSpec::Kvm, _) => VirtType::Kvm,
        (VirtTypeSpec::Qemu, _) => VirtType::Qemu,
        (VirtTypeSpec::Auto, Some(Object::Domain(made))) => made.virt_type,
        (VirtTypeSpec::Auto, _) => host.virt_type,
    }
}

/// What a server's disk lies over.
fn root_base(server: &Server, image: &Image, context: &Context<'_>, blueprint: &mut Blueprint) -> Option<BaseRef> {
    let made = match context.recorded.records.get(&disk_key(&server.name)).map(|record| &record.object) {
        Some(Object::Disk(disk)) => Some((&disk.image, disk.base.as_ref())),
        _ => None,
    };
    held_base(made, image, context, blueprint)
}

/// What a disk lies over that was `made` from an image, over a base, or is new. One that was made from this image stays over
/// what the image was then, as in Nova: a new version of an image is for new disks.
pub(super) fn held_base(
    made: Option<(&Name, Option<&BaseRef>)>,
    image: &Image,
    context: &Context<'_>,
    blueprint: &mut Blueprint,
) -> Option<BaseRef> {
    if let Some((_, held)) = made.filter(|(made, _)| **made == image.name) {
        let held = held.map(|held| (held, context.recorded.records.get(&base_key(&held.id))));
        match held {
            None if image.disk.is_none() => return None,
            Some((held, Some(record))) => {
                blueprint.add(record.object.clone());
                return Some(held.clone());
            }
            _ => {}
        }
    }
    let (file, format) = image.disk.as_ref()?;
    let base = disk_base(&image.name, file, *format, context);
    Some(BaseRef { id: base.id, path: base.path, format: format.kept_as() })
}

/// The user data that a server's disk is to have been made with. Only a server that is to be rebuilt asks for those of now;
/// any other keeps its disk.
fn made_with(server: &Server, context: &Context<'_>) -> Option<String> {
    let made = context.recorded.records.get(&disk_key(&server.name)).map(|record| &record.object);
    match made {
        Some(Object::Disk(disk))
            if server.cloud_init.on_change != OnUserDataChange::Rebuild && disk.image == server.image =>
        {
            disk.user_data.clone()
        }
        _ => seed::user_data_digest(&server.cloud_init),
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
