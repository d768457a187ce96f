//! Socket options, written once for every kind of handle.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::io::request::call::{option, set_option};

fn flag(number: RawFd, level: i32, name: i32) -> io::Result<bool> {
    Ok(option::<i32>(number, level, name)? != 0)
}

fn count(number: RawFd, level: i32, name: i32) -> io::Result<usize> {
    Ok(usize::try_from(option::<i32>(number, level, name)?).unwrap_or(0))
}

fn set_count(number: RawFd, level: i32, name: i32, value: usize) -> io::Result<()> {
    set_option(number, level, name, i32::try_from(value).unwrap_or(i32::MAX))
}

pub(super) fn nodelay(number: RawFd) -> io::Result<bool> {
    flag(number, libc::IPPROTO_TCP, libc::TCP_NODELAY)
}

pub(super) fn set_nodelay(number: RawFd, on: bool) -> io::Result<()> {
    set_option(number, libc::IPPROTO_TCP, libc::TCP_NODELAY, i32::from(on))
}

pub(super) fn keepalive(number: RawFd) -> io::Result<bool> {
    flag(number, libc::SOL_SOCKET, libc::SO_KEEPALIVE)
}

pub(super) fn set_keepalive(number: RawFd, on: bool) -> io::Result<()> {
    set_option(number, libc::SOL_SOCKET, libc::SO_KEEPALIVE, i32::from(on))
}

/// The three times of tcp(7); each is given in whole seconds, at least one.
pub(super) fn set_keepalive_times(
    number: RawFd,
    idle: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let seconds = |time: Duration| i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    set_keepalive(number, true)?;
    set_option(number, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(idle))?;
    set_option(number, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(interval))?;
    set_option(number, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, probes)
}

pub(super) fn reuse_address(number: RawFd) -> io::Result<bool> {
    flag(number, libc::SOL_SOCKET, libc::SO_REUSEADDR)
}

pub(super) fn set_reuse_address(number: RawFd, on: bool) -> io::Result<()> {
    set_option(number, libc::SOL_SOCKET, libc::SO_REUSEADDR, i32::from(on))
}

pub(super) fn reuse_port(number: RawFd) -> io::Result<bool> {
    flag(number, libc::SOL_SOCKET, libc::SO_REUSEPORT)
}

pub(super) fn set_reuse_port(number: RawFd, on: bool) -> io::Result<()> {
    set_option(number, libc::SOL_SOCKET, libc::SO_REUSEPORT, i32::from(on))
}

pub(super) fn send_buffer_size(number: RawFd) -> io::Result<usize> {
    count(number, libc::SOL_SOCKET, libc::SO_SNDBUF)
}

pub(super) fn set_send_buffer_size(number: RawFd, bytes: usize) -> io::Result<()> {
    set_count(number, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)
}

pub(super) fn recv_buffer_size(number: RawFd) -> io::Result<usize> {
    count(number, libc::SOL_SOCKET, libc::SO_RCVBUF)
}

pub(super) fn set_recv_buffer_size(number: RawFd, bytes: usize) -> io::Result<()> {
    set_count(number, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)
}

pub(super) fn is_v4(number: RawFd) -> io::Result<bool> {
    Ok(option::<i32>(number, libc::SOL_SOCKET, libc::SO_DOMAIN)? == libc::AF_INET)
}

/// The hop limit of either family (ip(7), ipv6(7)).
pub(super) fn ttl(number: RawFd) -> io::Result<u32> {
    if is_v4(number)? {
        option(number, libc::IPPROTO_IP, libc::IP_TTL)
    } else {
        option(number, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    }
}

pub(super) fn set_ttl(number: RawFd, hops: u32) -> io::Result<()> {
    if is_v4(number)? {
        set_option(number, libc::IPPROTO_IP, libc::IP_TTL, hops)
    } else {
        set_option(number, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, hops)
    }
}

pub(super) fn take_error(number: RawFd) -> io::Result<Option<io::Error>> {
    let error = option::<i32>(number, libc::SOL_SOCKET, libc::SO_ERROR)?;
    Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
}
