//! Names of flags and values, with this architecture's numbers.

use super::text::Table;

pub const ACCESS: Table = &[
    (libc::R_OK as i64 as u64, "R_OK"),
    (libc::W_OK as i64 as u64, "W_OK"),
    (libc::X_OK as i64 as u64, "X_OK"),
];
pub const AT: Table = &[
    (libc::AT_SYMLINK_NOFOLLOW as i64 as u64, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_REMOVEDIR as i64 as u64, "AT_REMOVEDIR"),
    (libc::AT_SYMLINK_FOLLOW as i64 as u64, "AT_SYMLINK_FOLLOW"),
    (libc::AT_NO_AUTOMOUNT as i64 as u64, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as i64 as u64, "AT_EMPTY_PATH"),
];
pub const OPEN: Table = &[
    (libc::O_CREAT as i64 as u64, "O_CREAT"),
    (libc::O_EXCL as i64 as u64, "O_EXCL"),
    (libc::O_NOCTTY as i64 as u64, "O_NOCTTY"),
    (libc::O_TRUNC as i64 as u64, "O_TRUNC"),
    (libc::O_APPEND as i64 as u64, "O_APPEND"),
    (libc::O_NONBLOCK as i64 as u64, "O_NONBLOCK"),
    (libc::O_SYNC as i64 as u64, "O_SYNC"),
    (libc::O_DSYNC as i64 as u64, "O_DSYNC"),
    (libc::O_ASYNC as i64 as u64, "O_ASYNC"),
    (libc::O_DIRECT as i64 as u64, "O_DIRECT"),
    (libc::O_LARGEFILE as i64 as u64, "O_LARGEFILE"),
    (libc::O_NOFOLLOW as i64 as u64, "O_NOFOLLOW"),
    (libc::O_NOATIME as i64 as u64, "O_NOATIME"),
    (libc::O_CLOEXEC as i64 as u64, "O_CLOEXEC"),
    (libc::O_PATH as i64 as u64, "O_PATH"),
    (libc::O_TMPFILE as i64 as u64, "O_TMPFILE"),
    (libc::O_DIRECTORY as i64 as u64, "O_DIRECTORY"),
];
pub const RESOLVE: Table = &[
    (libc::RESOLVE_NO_XDEV, "RESOLVE_NO_XDEV"),
    (libc::RESOLVE_NO_MAGICLINKS, "RESOLVE_NO_MAGICLINKS"),
    (libc::RESOLVE_NO_SYMLINKS, "RESOLVE_NO_SYMLINKS"),
    (libc::RESOLVE_BENEATH, "RESOLVE_BENEATH"),
    (libc::RESOLVE_IN_ROOT, "RESOLVE_IN_ROOT"),
    (libc::RESOLVE_CACHED, "RESOLVE_CACHED"),
];
pub const PROTECTION: Table = &[
    (libc::PROT_READ as i64 as u64, "PROT_READ"),
    (libc::PROT_WRITE as i64 as u64, "PROT_WRITE"),
    (libc::PROT_EXEC as i64 as u64, "PROT_EXEC"),
    (libc::PROT_GROWSDOWN as i64 as u64, "PROT_GROWSDOWN"),
    (libc::PROT_GROWSUP as i64 as u64, "PROT_GROWSUP"),
];
pub const MAP: Table = &[
    (libc::MAP_FIXED as i64 as u64, "MAP_FIXED"),
    (libc::MAP_ANONYMOUS as i64 as u64, "MAP_ANONYMOUS"),
    (libc::MAP_GROWSDOWN as i64 as u64, "MAP_GROWSDOWN"),
    (libc::MAP_DENYWRITE as i64 as u64, "MAP_DENYWRITE"),
    (libc::MAP_EXECUTABLE as i64 as u64, "MAP_EXECUTABLE"),
    (libc::MAP_LOCKED as i64 as u64, "MAP_LOCKED"),
    (libc::MAP_NORESERVE as i64 as u64, "MAP_NORESERVE"),
    (libc::MAP_POPULATE as i64 as u64, "MAP_POPULATE"),
    (libc::MAP_NONBLOCK as i64 as u64, "MAP_NONBLOCK"),
    (libc::MAP_STACK as i64 as u64, "MAP_STACK"),
    (libc::MAP_HUGETLB as i64 as u64, "MAP_HUGETLB"),
    (libc::MAP_SYNC as i64 as u64, "MAP_SYNC"),
    (libc::MAP_FIXED_NOREPLACE as i64 as u64, "MAP_FIXED_NOREPLACE"),
];
pub const REMAP: Table = &[
    (libc::MREMAP_MAYMOVE as i64 as u64, "MREMAP_MAYMOVE"),
    (libc::MREMAP_FIXED as i64 as u64, "MREMAP_FIXED"),
    (libc::MREMAP_DONTUNMAP as i64 as u64, "MREMAP_DONTUNMAP"),
];
pub const SYNC: Table = &[
    (libc::MS_ASYNC as i64 as u64, "MS_ASYNC"),
    (libc::MS_INVALIDATE as i64 as u64, "MS_INVALIDATE"),
    (libc::MS_SYNC as i64 as u64, "MS_SYNC"),
];
pub const WAIT: Table = &[
    (libc::WNOHANG as i64 as u64, "WNOHANG"),
    (libc::WUNTRACED as i64 as u64, "WUNTRACED"),
    (libc::WEXITED as i64 as u64, "WEXITED"),
    (libc::WCONTINUED as i64 as u64, "WCONTINUED"),
    (libc::WNOWAIT as i64 as u64, "WNOWAIT"),
    (libc::__WNOTHREAD as i64 as u64, "__WNOTHREAD"),
    (libc::__WCLONE as i64 as u64, "__WCLONE"),
    (libc::__WALL as i64 as u64, "__WALL"),
];
pub const CLONE: Table = &[
    (libc::CLONE_VM as i64 as u64, "CLONE_VM"),
    (libc::CLONE_FS as i64 as u64, "CLONE_FS"),
    (libc::CLONE_FILES as i64 as u64, "CLONE_FILES"),
    (libc::CLONE_SIGHAND as i64 as u64, "CLONE_SIGHAND"),
    (libc::CLONE_PIDFD as i64 as u64, "CLONE_PIDFD"),
    (libc::CLONE_PTRACE as i64 as u64, "CLONE_PTRACE"),
    (libc::CLONE_VFORK as i64 as u64, "CLONE_VFORK"),
    (libc::CLONE_PARENT as i64 as u64, "CLONE_PARENT"),
    (libc::CLONE_THREAD as i64 as u64, "CLONE_THREAD"),
    (libc::CLONE_NEWNS as i64 as u64, "CLONE_NEWNS"),
    (libc::CLONE_SYSVSEM as i64 as u64, "CLONE_SYSVSEM"),
    (libc::CLONE_SETTLS as i64 as u64, "CLONE_SETTLS"),
    (libc::CLONE_PARENT_SETTID as i64 as u64, "CLONE_PARENT_SETTID"),
    (libc::CLONE_CHILD_CLEARTID as i64 as u64, "CLONE_CHILD_CLEARTID"),
    (libc::CLONE_DETACHED as i64 as u64, "CLONE_DETACHED"),
    (libc::CLONE_UNTRACED as i64 as u64, "CLONE_UNTRACED"),
    (libc::CLONE_CHILD_SETTID as i64 as u64, "CLONE_CHILD_SETTID"),
    (libc::CLONE_NEWCGROUP as i64 as u64, "CLONE_NEWCGROUP"),
    (libc::CLONE_NEWUTS as i64 as u64, "CLONE_NEWUTS"),
    (libc::CLONE_NEWIPC as i64 as u64, "CLONE_NEWIPC"),
    (libc::CLONE_NEWUSER as i64 as u64, "CLONE_NEWUSER"),
    (libc::CLONE_NEWPID as i64 as u64, "CLONE_NEWPID"),
    (libc::CLONE_NEWNET as i64 as u64, "CLONE_NEWNET"),
    (libc::CLONE_IO as i64 as u64, "CLONE_IO"),
];
pub const MESSAGE: Table = &[
    (libc::MSG_OOB as i64 as u64, "MSG_OOB"),
    (libc::MSG_PEEK as i64 as u64, "MSG_PEEK"),
    (libc::MSG_DONTROUTE as i64 as u64, "MSG_DONTROUTE"),
    (libc::MSG_CTRUNC as i64 as u64, "MSG_CTRUNC"),
    (libc::MSG_TRUNC as i64 as u64, "MSG_TRUNC"),
    (libc::MSG_DONTWAIT as i64 as u64, "MSG_DONTWAIT"),
    (libc::MSG_EOR as i64 as u64, "MSG_EOR"),
    (libc::MSG_WAITALL as i64 as u64, "MSG_WAITALL"),
    (libc::MSG_NOSIGNAL as i64 as u64, "MSG_NOSIGNAL"),
    (libc::MSG_MORE as i64 as u64, "MSG_MORE"),
    (libc::MSG_WAITFORONE as i64 as u64, "MSG_WAITFORONE"),
    (libc::MSG_CMSG_CLOEXEC as i64 as u64, "MSG_CMSG_CLOEXEC"),
];
pub const EPOLL: Table = &[
    (libc::EPOLLIN as i64 as u64, "EPOLLIN"),
    (libc::EPOLLPRI as i64 as u64, "EPOLLPRI"),
    (libc::EPOLLOUT as i64 as u64, "EPOLLOUT"),
    (libc::EPOLLERR as i64 as u64, "EPOLLERR"),
    (libc::EPOLLHUP as i64 as u64, "EPOLLHUP"),
    (libc::EPOLLRDHUP as i64 as u64, "EPOLLRDHUP"),
    (libc::EPOLLEXCLUSIVE as i64 as u64, "EPOLLEXCLUSIVE"),
    (libc::EPOLLWAKEUP as i64 as u64, "EPOLLWAKEUP"),
    (libc::EPOLLONESHOT as i64 as u64, "EPOLLONESHOT"),
    (libc::EPOLLET as i64 as u64, "EPOLLET"),
];
pub const POLL: Table = &[
    (libc::POLLIN as i64 as u64, "POLLIN"),
    (libc::POLLPRI as i64 as u64, "POLLPRI"),
    (libc::POLLOUT as i64 as u64, "POLLOUT"),
    (libc::POLLERR as i64 as u64, "POLLERR"),
    (libc::POLLHUP as i64 as u64, "POLLHUP"),
    (libc::POLLNVAL as i64 as u64, "POLLNVAL"),
    (libc::POLLRDNORM as i64 as u64, "POLLRDNORM"),
    (libc::POLLRDBAND as i64 as u64, "POLLRDBAND"),
    (libc::POLLWRNORM as i64 as u64, "POLLWRNORM"),
    (libc::POLLWRBAND as i64 as u64, "POLLWRBAND"),
    (libc::POLLRDHUP as i64 as u64, "POLLRDHUP"),
];
pub const RANDOM: Table = &[
    (libc::GRND_NONBLOCK as i64 as u64, "GRND_NONBLOCK"),
    (libc::GRND_RANDOM as i64 as u64, "GRND_RANDOM"),
];
pub const MEMFD: Table = &[
    (libc::MFD_CLOEXEC as i64 as u64, "MFD_CLOEXEC"),
    (libc::MFD_ALLOW_SEALING as i64 as u64, "MFD_ALLOW_SEALING"),
    (libc::MFD_HUGETLB as i64 as u64, "MFD_HUGETLB"),
];
pub const EPOLL_CREATE: Table = &[(libc::EPOLL_CLOEXEC as i64 as u64, "EPOLL_CLOEXEC")];
pub const EVENTFD: Table = &[
    (libc::EFD_SEMAPHORE as i64 as u64, "EFD_SEMAPHORE"),
    (libc::EFD_CLOEXEC as i64 as u64, "EFD_CLOEXEC"),
    (libc::EFD_NONBLOCK as i64 as u64, "EFD_NONBLOCK"),
];
pub const PIPE: Table = &[
    (libc::O_CLOEXEC as i64 as u64, "O_CLOEXEC"),
    (libc::O_NONBLOCK as i64 as u64, "O_NONBLOCK"),
    (libc::O_DIRECT as i64 as u64, "O_DIRECT"),
];
pub const STATX: Table = &[
    (libc::AT_SYMLINK_NOFOLLOW as i64 as u64, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_NO_AUTOMOUNT as i64 as u64, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH as i64 as u64, "AT_EMPTY_PATH"),
];
pub const RENAME: Table = &[
    (libc::RENAME_NOREPLACE as i64 as u64, "RENAME_NOREPLACE"),
    (libc::RENAME_EXCHANGE as i64 as u64, "RENAME_EXCHANGE"),
    (libc::RENAME_WHITEOUT as i64 as u64, "RENAME_WHITEOUT"),
];
pub const ACTION: Table = &[
    (0x04000000, "SA_RESTORER"),
    (libc::SA_NOCLDSTOP as i64 as u64, "SA_NOCLDSTOP"),
    (libc::SA_NOCLDWAIT as i64 as u64, "SA_NOCLDWAIT"),
    (libc::SA_SIGINFO as i64 as u64, "SA_SIGINFO"),
    (libc::SA_ONSTACK as i64 as u64, "SA_ONSTACK"),
    (libc::SA_RESTART as i64 as u64, "SA_RESTART"),
    (libc::SA_NODEFER as i64 as u64, "SA_NODEFER"),
    (libc::SA_RESETHAND as i64 as u64, "SA_RESETHAND"),
];
pub const MOUNT: Table = &[
    (libc::MS_RDONLY as i64 as u64, "MS_RDONLY"),
    (libc::MS_NOSUID as i64 as u64, "MS_NOSUID"),
    (libc::MS_NODEV as i64 as u64, "MS_NODEV"),
    (libc::MS_NOEXEC as i64 as u64, "MS_NOEXEC"),
    (libc::MS_REMOUNT as i64 as u64, "MS_REMOUNT"),
    (libc::MS_BIND as i64 as u64, "MS_BIND"),
    (libc::MS_MOVE as i64 as u64, "MS_MOVE"),
    (libc::MS_REC as i64 as u64, "MS_REC"),
    (libc::MS_PRIVATE as i64 as u64, "MS_PRIVATE"),
    (libc::MS_SLAVE as i64 as u64, "MS_SLAVE"),
    (libc::MS_SHARED as i64 as u64, "MS_SHARED"),
    (libc::MS_RELATIME as i64 as u64, "MS_RELATIME"),
];
pub const WHENCE: Table = &[
    (libc::SEEK_SET as i64 as u64, "SEEK_SET"),
    (libc::SEEK_CUR as i64 as u64, "SEEK_CUR"),
    (libc::SEEK_END as i64 as u64, "SEEK_END"),
    (libc::SEEK_DATA as i64 as u64, "SEEK_DATA"),
    (libc::SEEK_HOLE as i64 as u64, "SEEK_HOLE"),
];
pub const HOW: Table = &[
    (libc::SIG_BLOCK as i64 as u64, "SIG_BLOCK"),
    (libc::SIG_UNBLOCK as i64 as u64, "SIG_UNBLOCK"),
    (libc::SIG_SETMASK as i64 as u64, "SIG_SETMASK"),
];
pub const DOMAIN: Table = &[
    (libc::AF_UNSPEC as i64 as u64, "AF_UNSPEC"),
    (libc::AF_UNIX as i64 as u64, "AF_UNIX"),
    (libc::AF_INET as i64 as u64, "AF_INET"),
    (libc::AF_INET6 as i64 as u64, "AF_INET6"),
    (libc::AF_NETLINK as i64 as u64, "AF_NETLINK"),
    (libc::AF_PACKET as i64 as u64, "AF_PACKET"),
    (libc::AF_VSOCK as i64 as u64, "AF_VSOCK"),
    (libc::AF_ALG as i64 as u64, "AF_ALG"),
];
pub const SOCK: Table = &[
    (libc::SOCK_STREAM as i64 as u64, "SOCK_STREAM"),
    (libc::SOCK_DGRAM as i64 as u64, "SOCK_DGRAM"),
    (libc::SOCK_RAW as i64 as u64, "SOCK_RAW"),
    (libc::SOCK_RDM as i64 as u64, "SOCK_RDM"),
    (libc::SOCK_SEQPACKET as i64 as u64, "SOCK_SEQPACKET"),
];
pub const PROTOCOL: Table = &[
    (libc::IPPROTO_IP as i64 as u64, "IPPROTO_IP"),
    (libc::IPPROTO_ICMP as i64 as u64, "IPPROTO_ICMP"),
    (libc::IPPROTO_TCP as i64 as u64, "IPPROTO_TCP"),
    (libc::IPPROTO_UDP as i64 as u64, "IPPROTO_UDP"),
    (libc::IPPROTO_IPV6 as i64 as u64, "IPPROTO_IPV6"),
    (libc::IPPROTO_ICMPV6 as i64 as u64, "IPPROTO_ICMPV6"),
    (libc::IPPROTO_RAW as i64 as u64, "IPPROTO_RAW"),
];
pub const LEVEL: Table = &[
    (libc::SOL_SOCKET as i64 as u64, "SOL_SOCKET"),
    (libc::IPPROTO_IP as i64 as u64, "SOL_IP"),
    (libc::IPPROTO_TCP as i64 as u64, "SOL_TCP"),
    (libc::IPPROTO_IPV6 as i64 as u64, "SOL_IPV6"),
];
pub const OPTION: Table = &[
    (libc::SO_DEBUG as i64 as u64, "SO_DEBUG"),
    (libc::SO_REUSEADDR as i64 as u64, "SO_REUSEADDR"),
    (libc::SO_TYPE as i64 as u64, "SO_TYPE"),
    (libc::SO_ERROR as i64 as u64, "SO_ERROR"),
    (libc::SO_DONTROUTE as i64 as u64, "SO_DONTROUTE"),
    (libc::SO_BROADCAST as i64 as u64, "SO_BROADCAST"),
    (libc::SO_SNDBUF as i64 as u64, "SO_SNDBUF"),
    (libc::SO_RCVBUF as i64 as u64, "SO_RCVBUF"),
    (libc::SO_KEEPALIVE as i64 as u64, "SO_KEEPALIVE"),
    (libc::SO_OOBINLINE as i64 as u64, "SO_OOBINLINE"),
    (libc::SO_LINGER as i64 as u64, "SO_LINGER"),
    (libc::SO_REUSEPORT as i64 as u64, "SO_REUSEPORT"),
    (libc::SO_PASSCRED as i64 as u64, "SO_PASSCRED"),
    (libc::SO_PEERCRED as i64 as u64, "SO_PEERCRED"),
    (libc::SO_RCVTIMEO as i64 as u64, "SO_RCVTIMEO"),
    (libc::SO_SNDTIMEO as i64 as u64, "SO_SNDTIMEO"),
    (libc::SO_ACCEPTCONN as i64 as u64, "SO_ACCEPTCONN"),
    (libc::SO_PROTOCOL as i64 as u64, "SO_PROTOCOL"),
    (libc::SO_DOMAIN as i64 as u64, "SO_DOMAIN"),
];
pub const SHUT: Table = &[
    (libc::SHUT_RD as i64 as u64, "SHUT_RD"),
    (libc::SHUT_WR as i64 as u64, "SHUT_WR"),
    (libc::SHUT_RDWR as i64 as u64, "SHUT_RDWR"),
];
pub const FCNTL: Table = &[
    (libc::F_DUPFD as i64 as u64, "F_DUPFD"),
    (libc::F_GETFD as i64 as u64, "F_GETFD"),
    (libc::F_SETFD as i64 as u64, "F_SETFD"),
    (libc::F_GETFL as i64 as u64, "F_GETFL"),
    (libc::F_SETFL as i64 as u64, "F_SETFL"),
    (libc::F_GETLK as i64 as u64, "F_GETLK"),
    (libc::F_SETLK as i64 as u64, "F_SETLK"),
    (libc::F_SETLKW as i64 as u64, "F_SETLKW"),
    (libc::F_SETOWN as i64 as u64, "F_SETOWN"),
    (libc::F_GETOWN as i64 as u64, "F_GETOWN"),
    (libc::F_DUPFD_CLOEXEC as i64 as u64, "F_DUPFD_CLOEXEC"),
    (libc::F_SETPIPE_SZ as i64 as u64, "F_SETPIPE_SZ"),
    (libc::F_GETPIPE_SZ as i64 as u64, "F_GETPIPE_SZ"),
    (libc::F_ADD_SEALS as i64 as u64, "F_ADD_SEALS"),
    (libc::F_GET_SEALS as i64 as u64, "F_GET_SEALS"),
    (libc::F_OFD_GETLK as i64 as u64, "F_OFD_GETLK"),
    (libc::F_OFD_SETLK as i64 as u64, "F_OFD_SETLK"),
    (libc::F_OFD_SETLKW as i64 as u64, "F_OFD_SETLKW"),
];
pub const EPOLL_OP: Table = &[
    (libc::EPOLL_CTL_ADD as i64 as u64, "EPOLL_CTL_ADD"),
    (libc::EPOLL_CTL_DEL as i64 as u64, "EPOLL_CTL_DEL"),
    (libc::EPOLL_CTL_MOD as i64 as u64, "EPOLL_CTL_MOD"),
];
pub const RLIMIT: Table = &[
    (libc::RLIMIT_CPU as i64 as u64, "RLIMIT_CPU"),
    (libc::RLIMIT_FSIZE as i64 as u64, "RLIMIT_FSIZE"),
    (libc::RLIMIT_DATA as i64 as u64, "RLIMIT_DATA"),
    (libc::RLIMIT_STACK as i64 as u64, "RLIMIT_STACK"),
    (libc::RLIMIT_CORE as i64 as u64, "RLIMIT_CORE"),
    (libc::RLIMIT_RSS as i64 as u64, "RLIMIT_RSS"),
    (libc::RLIMIT_NPROC as i64 as u64, "RLIMIT_NPROC"),
    (libc::RLIMIT_NOFILE as i64 as u64, "RLIMIT_NOFILE"),
    (libc::RLIMIT_MEMLOCK as i64 as u64, "RLIMIT_MEMLOCK"),
    (libc::RLIMIT_AS as i64 as u64, "RLIMIT_AS"),
    (libc::RLIMIT_LOCKS as i64 as u64, "RLIMIT_LOCKS"),
    (libc::RLIMIT_SIGPENDING as i64 as u64, "RLIMIT_SIGPENDING"),
    (libc::RLIMIT_MSGQUEUE as i64 as u64, "RLIMIT_MSGQUEUE"),
    (libc::RLIMIT_NICE as i64 as u64, "RLIMIT_NICE"),
    (libc::RLIMIT_RTPRIO as i64 as u64, "RLIMIT_RTPRIO"),
    (libc::RLIMIT_RTTIME as i64 as u64, "RLIMIT_RTTIME"),
];
pub const ADVICE: Table = &[
    (libc::MADV_NORMAL as i64 as u64, "MADV_NORMAL"),
    (libc::MADV_RANDOM as i64 as u64, "MADV_RANDOM"),
    (libc::MADV_SEQUENTIAL as i64 as u64, "MADV_SEQUENTIAL"),
    (libc::MADV_WILLNEED as i64 as u64, "MADV_WILLNEED"),
    (libc::MADV_DONTNEED as i64 as u64, "MADV_DONTNEED"),
    (libc::MADV_FREE as i64 as u64, "MADV_FREE"),
    (libc::MADV_REMOVE as i64 as u64, "MADV_REMOVE"),
    (libc::MADV_DONTFORK as i64 as u64, "MADV_DONTFORK"),
    (libc::MADV_DOFORK as i64 as u64, "MADV_DOFORK"),
    (libc::MADV_MERGEABLE as i64 as u64, "MADV_MERGEABLE"),
    (libc::MADV_UNMERGEABLE as i64 as u64, "MADV_UNMERGEABLE"),
    (libc::MADV_HUGEPAGE as i64 as u64, "MADV_HUGEPAGE"),
    (libc::MADV_NOHUGEPAGE as i64 as u64, "MADV_NOHUGEPAGE"),
    (libc::MADV_DONTDUMP as i64 as u64, "MADV_DONTDUMP"),
    (libc::MADV_DODUMP as i64 as u64, "MADV_DODUMP"),
];
pub const FADVICE: Table = &[
    (libc::POSIX_FADV_NORMAL as i64 as u64, "POSIX_FADV_NORMAL"),
    (libc::POSIX_FADV_RANDOM as i64 as u64, "POSIX_FADV_RANDOM"),
    (libc::POSIX_FADV_SEQUENTIAL as i64 as u64, "POSIX_FADV_SEQUENTIAL"),
    (libc::POSIX_FADV_WILLNEED as i64 as u64, "POSIX_FADV_WILLNEED"),
    (libc::POSIX_FADV_DONTNEED as i64 as u64, "POSIX_FADV_DONTNEED"),
    (libc::POSIX_FADV_NOREUSE as i64 as u64, "POSIX_FADV_NOREUSE"),
];
pub const CLOCK: Table = &[
    (libc::CLOCK_REALTIME as i64 as u64, "CLOCK_REALTIME"),
    (libc::CLOCK_MONOTONIC as i64 as u64, "CLOCK_MONOTONIC"),
    (
        libc::CLOCK_PROCESS_CPUTIME_ID as i64 as u64,
        "CLOCK_PROCESS_CPUTIME_ID",
    ),
    (
        libc::CLOCK_THREAD_CPUTIME_ID as i64 as u64,
        "CLOCK_THREAD_CPUTIME_ID",
    ),
    (libc::CLOCK_MONOTONIC_RAW as i64 as u64, "CLOCK_MONOTONIC_RAW"),
    (libc::CLOCK_REALTIME_COARSE as i64 as u64, "CLOCK_REALTIME_COARSE"),
    (
        libc::CLOCK_MONOTONIC_COARSE as i64 as u64,
        "CLOCK_MONOTONIC_COARSE",
    ),
    (libc::CLOCK_BOOTTIME as i64 as u64, "CLOCK_BOOTTIME"),
];
pub const FLOCK: Table = &[
    (libc::LOCK_SH as i64 as u64, "LOCK_SH"),
    (libc::LOCK_EX as i64 as u64, "LOCK_EX"),
    (libc::LOCK_UN as i64 as u64, "LOCK_UN"),
];
pub const IOCTL: Table = &[
    (libc::TCGETS as i64 as u64, "TCGETS"),
    (libc::TCSETS as i64 as u64, "TCSETS"),
    (libc::TCSETSW as i64 as u64, "TCSETSW"),
    (libc::TIOCGWINSZ as i64 as u64, "TIOCGWINSZ"),
    (libc::TIOCSWINSZ as i64 as u64, "TIOCSWINSZ"),
    (libc::TIOCGPGRP as i64 as u64, "TIOCGPGRP"),
    (libc::TIOCSPGRP as i64 as u64, "TIOCSPGRP"),
    (libc::FIONREAD as i64 as u64, "FIONREAD"),
    (libc::FIONBIO as i64 as u64, "FIONBIO"),
    (libc::FIOCLEX as i64 as u64, "FIOCLEX"),
    (libc::TIOCSCTTY as i64 as u64, "TIOCSCTTY"),
    (libc::TIOCNOTTY as i64 as u64, "TIOCNOTTY"),
];
pub const PRCTL: Table = &[
    (libc::PR_SET_PDEATHSIG as i64 as u64, "PR_SET_PDEATHSIG"),
    (libc::PR_GET_PDEATHSIG as i64 as u64, "PR_GET_PDEATHSIG"),
    (libc::PR_GET_DUMPABLE as i64 as u64, "PR_GET_DUMPABLE"),
    (libc::PR_SET_DUMPABLE as i64 as u64, "PR_SET_DUMPABLE"),
    (libc::PR_SET_NAME as i64 as u64, "PR_SET_NAME"),
    (libc::PR_GET_NAME as i64 as u64, "PR_GET_NAME"),
    (libc::PR_GET_SECCOMP as i64 as u64, "PR_GET_SECCOMP"),
    (libc::PR_SET_SECCOMP as i64 as u64, "PR_SET_SECCOMP"),
    (libc::PR_CAPBSET_READ as i64 as u64, "PR_CAPBSET_READ"),
    (libc::PR_CAPBSET_DROP as i64 as u64, "PR_CAPBSET_DROP"),
    (libc::PR_SET_NO_NEW_PRIVS as i64 as u64, "PR_SET_NO_NEW_PRIVS"),
    (libc::PR_GET_NO_NEW_PRIVS as i64 as u64, "PR_GET_NO_NEW_PRIVS"),
    (libc::PR_SET_MM as i64 as u64, "PR_SET_MM"),
    (
        libc::PR_SET_CHILD_SUBREAPER as i64 as u64,
        "PR_SET_CHILD_SUBREAPER",
    ),
    (0x53564d41, "PR_SET_VMA"),
];
pub const RUSAGE: Table = &[
    (libc::RUSAGE_SELF as i64 as u64, "RUSAGE_SELF"),
    (libc::RUSAGE_CHILDREN as i64 as u64, "RUSAGE_CHILDREN"),
    (libc::RUSAGE_THREAD as i64 as u64, "RUSAGE_THREAD"),
];
pub const IDTYPE: Table = &[
    (libc::P_ALL as i64 as u64, "P_ALL"),
    (libc::P_PID as i64 as u64, "P_PID"),
    (libc::P_PGID as i64 as u64, "P_PGID"),
    (libc::P_PIDFD as i64 as u64, "P_PIDFD"),
];
/// Not known to the libc crate.
pub const ARCH: Table = &[
    (0x1001, "ARCH_SET_GS"),
    (0x1002, "ARCH_SET_FS"),
    (0x1003, "ARCH_GET_FS"),
    (0x1004, "ARCH_GET_GS"),
    (0x3001, "0x3001 /* ARCH_CET_STATUS */"),
];
pub const STATX_MASK: Table = &[
    (libc::STATX_BASIC_STATS as i64 as u64, "STATX_BASIC_STATS"),
    (libc::STATX_TYPE as i64 as u64, "STATX_TYPE"),
    (libc::STATX_MODE as i64 as u64, "STATX_MODE"),
    (libc::STATX_NLINK as i64 as u64, "STATX_NLINK"),
    (libc::STATX_UID as i64 as u64, "STATX_UID"),
    (libc::STATX_GID as i64 as u64, "STATX_GID"),
    (libc::STATX_ATIME as i64 as u64, "STATX_ATIME"),
    (libc::STATX_MTIME as i64 as u64, "STATX_MTIME"),
    (libc::STATX_CTIME as i64 as u64, "STATX_CTIME"),
    (libc::STATX_INO as i64 as u64, "STATX_INO"),
    (libc::STATX_SIZE as i64 as u64, "STATX_SIZE"),
    (libc::STATX_BLOCKS as i64 as u64, "STATX_BLOCKS"),
    (libc::STATX_BTIME as i64 as u64, "STATX_BTIME"),
    (libc::STATX_MNT_ID as i64 as u64, "STATX_MNT_ID"),
];
pub const TCP_OPTION: Table = &[
    (libc::TCP_NODELAY as i64 as u64, "TCP_NODELAY"),
    (libc::TCP_MAXSEG as i64 as u64, "TCP_MAXSEG"),
    (libc::TCP_CORK as i64 as u64, "TCP_CORK"),
    (libc::TCP_KEEPIDLE as i64 as u64, "TCP_KEEPIDLE"),
    (libc::TCP_KEEPINTVL as i64 as u64, "TCP_KEEPINTVL"),
    (libc::TCP_KEEPCNT as i64 as u64, "TCP_KEEPCNT"),
    (libc::TCP_SYNCNT as i64 as u64, "TCP_SYNCNT"),
    (libc::TCP_LINGER2 as i64 as u64, "TCP_LINGER2"),
    (libc::TCP_DEFER_ACCEPT as i64 as u64, "TCP_DEFER_ACCEPT"),
    (libc::TCP_WINDOW_CLAMP as i64 as u64, "TCP_WINDOW_CLAMP"),
    (libc::TCP_INFO as i64 as u64, "TCP_INFO"),
    (libc::TCP_QUICKACK as i64 as u64, "TCP_QUICKACK"),
    (libc::TCP_CONGESTION as i64 as u64, "TCP_CONGESTION"),
    (libc::TCP_USER_TIMEOUT as i64 as u64, "TCP_USER_TIMEOUT"),
    (libc::TCP_FASTOPEN as i64 as u64, "TCP_FASTOPEN"),
];
pub const ACCEPT: Table = &[
    (libc::SOCK_CLOEXEC as i64 as u64, "SOCK_CLOEXEC"),
    (libc::SOCK_NONBLOCK as i64 as u64, "SOCK_NONBLOCK"),
];
