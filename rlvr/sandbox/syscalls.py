"""System call numbers, and the list of those that a sandboxed program may make. Knows no filter mechanics.

The list is what a single-process Python program with threads needs. Everything else is refused, so that a call the
next kernel brings is refused too: no fork, exec, socket, ptrace, io_uring, bpf, mount, keyctl, memfd, userfaultfd, ...
"""

import platform
from dataclasses import dataclass

X86_64 = """
read=0 write=1 readv=19 writev=20 pread64=17 pwrite64=18 preadv=295 pwritev=296 preadv2=327 pwritev2=328 close=3
close_range=436 lseek=8 open=2 openat=257 stat=4 fstat=5 lstat=6 newfstatat=262 statx=332 access=21 faccessat=269
faccessat2=439 readlink=89 readlinkat=267 statfs=137 fstatfs=138 getdents=78 getdents64=217 getcwd=79 chdir=80
fchdir=81 umask=95 fsync=74 fdatasync=75 fallocate=285 ftruncate=77 fadvise64=221 flock=73 dup=32 dup2=33 dup3=292
pipe=22 pipe2=293 mkdir=83 mkdirat=258 rmdir=84 unlink=87 unlinkat=263 rename=82 renameat=264 renameat2=316 link=86
linkat=265 symlink=88 symlinkat=266 creat=85 truncate=76 chmod=90 fchmod=91 fchmodat=268 fchmodat2=452 utime=132
utimes=235 futimesat=261 utimensat=280 getxattr=191 lgetxattr=192 fgetxattr=193 listxattr=194 llistxattr=195
flistxattr=196 poll=7 ppoll=271 select=23 pselect6=270 epoll_create=213 epoll_create1=291 epoll_ctl=233
epoll_wait=232 epoll_pwait=281 epoll_pwait2=441 eventfd=284 eventfd2=290 mmap=9 munmap=11 mprotect=10 mremap=25
madvise=28 brk=12 msync=26 rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 rt_sigpending=127 rt_sigtimedwait=128
rt_sigsuspend=130 sigaltstack=131 pause=34 alarm=37 setitimer=38 getitimer=36 timer_create=222 timer_settime=223
timer_gettime=224 timer_getoverrun=225 timer_delete=226 restart_syscall=219 nanosleep=35 clock_nanosleep=230
clock_gettime=228 clock_getres=229 gettimeofday=96 time=201 times=100 futex=202 sched_yield=24 sched_getaffinity=204
sched_getparam=143 sched_getscheduler=145 sched_get_priority_max=146 sched_get_priority_min=147 getpriority=140
getcpu=309 set_robust_list=273 set_tid_address=218 rseq=334 arch_prctl=158 membarrier=324 exit=60 exit_group=231
wait4=61 waitid=247 getpid=39 getppid=110 gettid=186 getpgid=121 getpgrp=111 getsid=124 getuid=102 geteuid=107
getgid=104 getegid=108 getresuid=118 getresgid=120 getgroups=115 getrandom=318 uname=63 sysinfo=99 getrusage=98
getrlimit=97 setrlimit=160 capget=125 recvfrom=45 getsockname=51 getpeername=52 shutdown=48 clone=56 kill=62
tgkill=234 fcntl=72 ioctl=16 prlimit64=302 prctl=157 socketpair=53 sendto=44 clone3=435
"""
# linux/asm-generic: no call that a newer one replaced
AARCH64 = """
read=63 write=64 readv=65 writev=66 pread64=67 pwrite64=68 preadv=69 pwritev=70 preadv2=286 pwritev2=287 close=57
close_range=436 lseek=62 openat=56 fstat=80 newfstatat=79 statx=291 faccessat=48 faccessat2=439 readlinkat=78
statfs=43 fstatfs=44 getdents64=61 getcwd=17 chdir=49 fchdir=50 umask=166 fsync=82 fdatasync=83 fallocate=47
ftruncate=46 fadvise64=223 flock=32 dup=23 dup3=24 pipe2=59 mkdirat=34 unlinkat=35 renameat=38 renameat2=276 linkat=37
symlinkat=36 truncate=45 fchmod=52 fchmodat=53 fchmodat2=452 utimensat=88 getxattr=8 lgetxattr=9 fgetxattr=10
listxattr=11 llistxattr=12 flistxattr=13 ppoll=73 pselect6=72 epoll_create1=20 epoll_ctl=21 epoll_pwait=22
epoll_pwait2=441 eventfd2=19 mmap=222 munmap=215 mprotect=226 mremap=216 madvise=233 brk=214 msync=227
rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139 rt_sigpending=136 rt_sigtimedwait=137 rt_sigsuspend=133
sigaltstack=132 setitimer=103 getitimer=102 timer_create=107 timer_settime=110 timer_gettime=108 timer_getoverrun=109
timer_delete=111 restart_syscall=128 nanosleep=101 clock_nanosleep=115 clock_gettime=113 clock_getres=114
gettimeofday=169 times=153 futex=98 sched_yield=124 sched_getaffinity=123 sched_getparam=121 sched_getscheduler=120
sched_get_priority_max=125 sched_get_priority_min=126 getpriority=141 getcpu=168 set_robust_list=99 set_tid_address=96
rseq=293 membarrier=283 exit=93 exit_group=94 wait4=260 waitid=95 getpid=172 getppid=173 gettid=178 getpgid=155
getsid=156 getuid=174 geteuid=175 getgid=176 getegid=177 getresuid=148 getresgid=150 getgroups=158 getrandom=278
uname=160 sysinfo=179 getrusage=165 getrlimit=163 setrlimit=164 capget=90 recvfrom=207 getsockname=204 getpeername=205
shutdown=210 clone=220 kill=129 tgkill=131 fcntl=25 ioctl=29 prlimit64=261 prctl=167 socketpair=199 sendto=206
clone3=435
"""
# These change what a file is without writing to it, and Landlock has no say in them: only where every file that can
# be seen is the job's own.
METADATA = frozenset({"chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat"})
# Landlock governs these from its version 3 on.
TRUNCATING = frozenset({"truncate", "creat"})


@dataclass(frozen=True)
class Architecture:
    name: str
    audit: int  # AUDIT_ARCH_*: what seccomp calls it
    allowed: dict[str, int]  # only these calls may be made, some of them only with certain arguments
    unshare: int
    seccomp: int
    pivot_root: int
    capset: int


def _table(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (word.partition("=") for word in text.split())}


ARCHITECTURES = {
    "x86_64": Architecture("x86_64", 0xC000003E, _table(X86_64), 272, 317, 155, 126),
    "aarch64": Architecture("aarch64", 0xC00000B7, _table(AARCH64), 97, 277, 41, 91),
}
# the same everywhere since they came after the tables were unified
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446


def architecture() -> Architecture | None:
    """Of this process; None where we have no table."""
    return ARCHITECTURES.get(platform.machine())
