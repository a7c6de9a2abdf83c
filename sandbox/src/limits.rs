//! Whether this host can hold a spec's limits.
//!
//! Pure. A limit that cannot be held is refused with what is missing; none is left out. Whether it means anything at all is
//! [`crate::BadSpec`]'s to say.

use crate::control_group::ControlGroups;
use crate::error::Refusal;
use crate::probe::Host;
use crate::spec::Spec;

/// Refuses limits that nothing here can hold.
pub(crate) fn check(spec: &Spec, host: &Host) -> Result<(), Refusal> {
    let limits = &spec.limits;
    for (name, what, value, instead) in [
        ("memory_total", "total memory", limits.memory_total, "address_space"),
        ("cpu_total", "total CPU time", limits.cpu_total, "cpu"),
    ] {
        if let (Some(_), ControlGroups::Absent { why, remedy }) = (value, &host.control_groups) {
            return Err(Refusal {
                missing: format!("a bound on {what}"),
                why: format!("limits.{name} needs a control group, and {why}"),
                remedy: format!("{remedy}; or leave {name} out and bound each process with {instead}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PlanError, plan, probe};

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Spec), words: &str) {
        let mut spec = Spec::new("/program");
        change(&mut spec);
        let mut host = probe();
        host.lacks.clear();
        host.control_groups = ControlGroups::Absent { why: "no groups".into(), remedy: "be root".into() };
        let PlanError::Host(refusal) = plan(&spec, &host).expect_err("it must be refused") else {
            panic!("not the spec")
        };
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert!(!refusal.remedy.is_empty());
    }

    #[test]
    fn what_only_a_control_group_can_hold_is_refused_without_one_and_the_remedy_is_named() {
        refused(|spec| spec.limits.memory_total = Some(1 << 30), "a bound on total memory is missing");
        refused(|spec| spec.limits.memory_total = Some(1 << 30), "no groups");
        refused(|spec| spec.limits.cpu_total = Some(60), "be root; or leave cpu_total out");
    }
}
