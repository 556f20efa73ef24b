//! How many CPUs this process may use: its affinity, and the quota of its control groups (version 1 and 2).

use std::path::{Path, PathBuf};

/// Where the kernel's files are; another directory in tests.
#[derive(Debug, Clone)]
pub struct Root(pub PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

/// CPUs by affinity, or by the tightest quota rounded up if that is less; at least 1.
#[must_use]
pub fn available(root: &Root) -> usize {
    let affinity = affinity(root).unwrap_or(1).max(1);
    quota(root).map_or(affinity, |quota| affinity.min(quota.max(1)))
}

fn affinity(root: &Root) -> Option<usize> {
    let status = std::fs::read_to_string(root.0.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut count = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// Reads one group's quota.
type ReadQuota = fn(&Path) -> Option<usize>;

/// The tightest quota on the way from this process's group to the root, in CPUs rounded up.
fn quota(root: &Root) -> Option<usize> {
    let groups = std::fs::read_to_string(root.0.join("proc/self/cgroup")).ok()?;
    let base = root.0.join("sys/fs/cgroup");
    let mut tightest: Option<usize> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mounts, read): (Vec<PathBuf>, ReadQuota) = if controllers.is_empty() {
            (vec![base.clone(), base.join("unified")], version_2)
        } else if controllers.split(',').any(|name| name == "cpu") {
            (vec![base.join("cpu"), base.join(controllers), base.join("cpu,cpuacct")], version_1)
        } else {
            continue;
        };
        for mount in mounts {
            // Inside a container the path may be the host's and not exist here: then the mount itself is the group.
            for group in Path::new(path.trim_start_matches('/')).ancestors() {
                let cpus = read(&mount.join(group));
                tightest = match (tightest, cpus) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }
    tightest
}

fn version_2(group: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    rounded_up(quota.parse().ok()?, period.parse().ok()?)
}

fn version_1(group: &Path) -> Option<usize> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<i64>().ok();
    let quota = u64::try_from(read("cpu.cfs_quota_us")?).ok()?;
    rounded_up(quota, u64::try_from(read("cpu.cfs_period_us")?).ok()?)
}

fn rounded_up(quota: u64, period: u64) -> Option<usize> {
    (period > 0 && quota > 0).then(|| usize::try_from(quota.div_ceil(period)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root(directory.path().to_owned());
        (directory, root)
    }

    #[test]
    fn affinity_and_quota_both_count() {
        let eight = ("proc/self/status", "Name:\tlegate\nCpus_allowed_list:\t0-3,8,10-12\n");
        let rows: [(&[(&str, &str)], usize); 7] = [
            (&[eight], 8),
            (&[eight, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "max 100000\n")], 8),
            (&[eight, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "150000 100000\n")], 2),
            (&[eight, ("proc/self/cgroup", "0::/a/b\n"), ("sys/fs/cgroup/a/cpu.max", "10000 100000\n")], 1),
            (
                &[
                    eight,
                    ("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n0::/\n"),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n"),
                    ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
                3,
            ),
            (
                &[
                    eight,
                    ("proc/self/cgroup", "4:cpu:/\n"),
                    ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                    ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                ],
                8,
            ),
            (&[], 1),
        ];
        for (files, expected) in rows {
            let (_directory, root) = machine(files);
            assert_eq!(available(&root), expected, "{files:?}");
        }
    }
}
