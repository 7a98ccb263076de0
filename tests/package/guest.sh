#!/bin/bash
# Runs inside a booted system: guest.sh PART. Each part checks what a technician would see, and ends
# with an error that says what was expected. /opt/rig holds the packages and the test's files.
set -euo pipefail
ANNA=04A1B201
RIG=/opt/rig

say() { echo "  $*"; }
fail() {
    echo "  FAILED: $*"
    journalctl -b --no-pager -n 40 -o cat -u tapgate -u pcscd || true
    systemctl list-jobs --no-pager | head -20
    tapgate status || true
    exit 1
}
# Waits up to 40 s for what must happen; LOOKS are more where a machine is emulated.
until_() { # WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq "${LOOKS:-200}"); do
        if "$@" >/dev/null 2>&1; then say "$what"; return; fi
        sleep 0.2
    done
    fail "$what: not in time"
}
must() { local what=$1; shift; "$@" >/dev/null || fail "$what"; say "$what"; }
is() { [ "$2" = "$3" ] || fail "$1: expected '$3', found '$2'"; say "$1: $2"; }

status() { tapgate status --json 2>/dev/null || true; }
# Older jq takes no input at all for a yes.
holds() { local now; now=$(status); [ -n "$now" ] && jq -e "$1" <<<"$now"; }
station() { status | jq -r ".stations[0].$1"; }
unit() { systemctl show -P "$1" tapgate; }
coil() { cat /run/site/coil-0; }
never_switched_off() { ! grep -qx '0 0' /run/site/changes; }
tap() { python3 $RIG/site.py tap "${BADGE:-$ANNA}"; }

machines() {
    systemd-run -q --unit=machines python3 $RIG/site.py machines
    until_ "machines answer" test -e /run/site/coil-0
}

install_previous() {
    dpkg -i $RIG/previous.deb >/dev/null
    is "the system user's group" "$(id -gn tapgate)" tapgate
    id -nG tapgate | grep -qw dialout || fail "tapgate is not in dialout"
    is "the config's owner and mode" "$(stat -c '%U:%G %a' /etc/tapgate/config.toml)" "root:tapgate 640"
    is "the service before anybody enabled it" "$(systemctl is-enabled tapgate)/$(unit ActiveState)" disabled/inactive
    must "the shipped config passes tapgate check" tapgate check
    must "systemd finds nothing wrong with the units" systemd-analyze verify --man=no tapgate.service tapgate-clock.service
    must "manual pages" test -e /usr/share/man/man8/tapgate.8.gz -o -e /usr/share/man/man8/tapgate.8
    systemd-analyze security --offline=true --threshold=13 /usr/lib/systemd/system/tapgate.service >/dev/null ||
        fail "the unit is more exposed than 1.3"
    say "exposure: $(systemd-analyze security --offline=true /usr/lib/systemd/system/tapgate.service 2>&1 |
        sed -n 's/.*service: \([0-9.]*\).*/\1/p')"
}

broker() {
    (umask 077; echo secret > /etc/credstore/mqtt-password)
    mosquitto_passwd -b -c /etc/mosquitto/passwd package-test secret
    chown mosquitto /etc/mosquitto/passwd
    printf 'listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/passwd\n' \
        > /etc/mosquitto/conf.d/site.conf
    systemctl enable -q mosquitto
    systemctl restart mosquitto
    python3 $RIG/site.py allowlist $ANNA > /run/head.json
    mosquitto_pub -h 127.0.0.1 -u package-test -P secret -q 1 -r -t tapgate/1/package-test/down/allowlist -f /run/head.json
}

everything_is_there() {
    until_ "the reader is ready" holds '.readers[0].state == "ready"'
    until_ "the machines answer the daemon" holds '[.devices[].state] == ["ok", "ok"]'
    until_ "the meter is known" holds '.stations[0].register_wh > 0'
    until_ "an allowlist decides" holds '.allowlist.count == 1'
}

first_start() {
    install -m 0640 -g tapgate $RIG/config.toml /etc/tapgate/config.toml
    must "the edited config passes tapgate check" tapgate check
    mkdir -p /etc/systemd/system/tapgate.service.d
    printf '[Service]\nWatchdogSec=4\n' > /etc/systemd/system/tapgate.service.d/test.conf
    systemctl daemon-reload
    systemctl enable -q --now tapgate
    is "started" "$(unit ActiveState)" active
    is "it runs as" "$(stat -c %U "/proc/$(unit MainPID)")" tapgate
    is "capabilities" "$(awk '/CapEff/ {print $2}' "/proc/$(unit MainPID)/status")" 0000000000000000
    everything_is_there
    until_ "the broker took the password of LoadCredential" holds '.cloud.connected'
    is "the control socket" "$(stat -c '%U:%G %a' /run/tapgate/control.sock)" "tapgate:tapgate 660"
}

starts_a_session() {
    tap
    until_ "a tap through pcscd starts the washer" holds '.stations[0].state == "in_use"'
    is "the relay" "$(coil)" 1
}

journal_tells_the_story() {
    local line
    until_ "journalctl finds the session by STATION" sh -c \
        "journalctl -u tapgate STATION=washer-1 -o json --no-pager | grep -q 'session started'"
    line=$(journalctl -u tapgate STATION=washer-1 -o json --no-pager | grep 'session started' | tail -1)
    has_fields "$line" STATION SESSION USER BADGE RECORD PRIORITY SYSLOG_IDENTIFIER
    say "journal fields: $(jq -c '{STATION,SESSION,USER,BADGE,RECORD,PRIORITY}' <<<"$line")"
    ! journalctl -b -u tapgate --no-pager | grep -q $ANNA || fail "a UID is in the journal"
}

has_fields() { # LINE FIELD...
    local line=$1 field
    shift
    for field in "$@"; do
        jq -e "has(\"$field\")" <<<"$line" >/dev/null || fail "the journal has no $field: $line"
    done
}

# The newest line of the journal with this field and this text.
journal_line() { # FIELD=VALUE TEXT
    journalctl -b -u tapgate "$1" -o json --no-pager | grep -F "$2" | tail -1
}

journal_says() { # WHAT FIELD=VALUE TEXT FIELD...
    until_ "$1" sh -c "journalctl -b -u tapgate '$2' -o json --no-pager | grep -qF '$3'"
    has_fields "$(journal_line "$2" "$3")" "${@:4}"
}

a_stranger_is_refused() {
    python3 $RIG/site.py tap 04FFFFFF
    journal_says "journalctl finds a refusal by REASON" REASON=unknown_badge refused READER STATION
    is "the relay" "$(coil)" 0
}

machines_fall_silent() {
    systemctl stop machines
    journal_says "journalctl finds a dead bus by BUS" BUS=room "bus is down" PRIORITY
    machines
    until_ "the machines answer again" holds '[.devices[].state] == ["ok", "ok"]'
}

# The session that was there before is still there, and its machine never stopped.
goes_on() { # SESSION AFTER-WHAT
    until_ "after $2 the same session goes on" holds ".stations[0].session.session == \"$1\" and .stations[0].session.phase == \"running\""
    is "the relay" "$(coil)" 1
    must "it was never switched off" never_switched_off
}

watchdog_restarts() {
    local session pid restarts
    session=$(station session.session)
    pid=$(unit MainPID)
    restarts=$(unit NRestarts)
    systemctl kill -s STOP tapgate
    until_ "the watchdog restarts a daemon that hangs" sh -c "[ \$(systemctl show -P NRestarts tapgate) -gt $restarts ]"
    [ "$(unit MainPID)" != "$pid" ] || fail "it is still the same process"
    goes_on "$session" "the watchdog"
}

reloads() {
    local session pid
    session=$(station session.session)
    pid=$(unit MainPID)
    sed -i 's/^label = .*/label = "Machine one"/' /etc/tapgate/config.toml
    must "systemctl reload" systemctl reload tapgate
    # It returns when the new config runs, not before.
    is "the reloaded label" "$(station label)" "Machine one"
    is "the same process" "$(unit MainPID)/$(unit ActiveState)" "$pid/active"
    goes_on "$session" "the reload"
    echo 'colour = "blue"' >> /etc/tapgate/config.toml
    ! systemctl reload tapgate 2>/dev/null || fail "a wrong config was reloaded"
    is "after a refused reload" "$(unit MainPID)/$(unit ActiveState)" "$pid/active"
    goes_on "$session" "the refused reload"
    sed -i '$d' /etc/tapgate/config.toml
}

upgrades() {
    local session pid
    session=$(station session.session)
    pid=$(unit MainPID)
    cp /etc/tapgate/config.toml /run/config.before
    dpkg -i $RIG/tapgate.deb >/dev/null </dev/null
    until_ "the upgrade restarted the service" sh -c "[ \$(systemctl show -P MainPID tapgate) != $pid ]"
    is "the version" "$(dpkg-query -W -f '${Version}' tapgate)" "$(dpkg-deb -f $RIG/tapgate.deb Version)"
    must "the site's config is untouched" cmp /etc/tapgate/config.toml /run/config.before
    goes_on "$session" "the upgrade"
}

ends_by_itself() {
    touch /run/site/idle
    until_ "the finished wash ends its session" holds '.stations[0].state == "available"'
    is "the relay" "$(coil)" 0
    rm /run/site/idle
}

fails_for_good_on_a_wrong_config() {
    cp /etc/tapgate/config.toml /run/config.good
    echo 'colour = "blue"' >> /etc/tapgate/config.toml
    ! systemctl restart tapgate 2>/dev/null || fail "a wrong config was taken"
    sleep 3
    is "a wrong config is not tried again" "$(unit ActiveState)/$(unit ExecMainStatus)" failed/78
    cp /run/config.good /etc/tapgate/config.toml
    systemctl restart tapgate
    everything_is_there
}

# One part is one boot.
part_install() {
    [ "$(systemctl is-system-running --wait || true)" = running ] || systemctl --failed --no-legend
    install_previous
    machines
    broker
    first_start
    a_stranger_is_refused
    machines_fall_silent
    starts_a_session
    journal_tells_the_story
    watchdog_restarts
    reloads
    upgrades
    systemctl stop tapgate
    is "after a stop: the relay" "$(coil)" 1
    systemctl start tapgate
    goes_on "$(station session.session)" "stop and start"
    ends_by_itself
    journal_says "its end is there too" STATION=washer-1 "session is ending" SESSION REASON RECORD
    fails_for_good_on_a_wrong_config
    systemctl disable -q --now mosquitto
    # From here on there is no password either: the unit starts all the same.
    rm /etc/credstore/mqtt-password
}

# The broker is gone and there is no network.
part_offline() {
    is "network interfaces" "$(ls /sys/class/net | tr '\n' ' ')" "lo "
    until_ "started at boot" systemctl is-active tapgate
    say "active $((($(unit ActiveEnterTimestampMonotonic) - $(systemctl show -P UserspaceTimestampMonotonic)) / 1000)) ms after the boot began"
    machines
    everything_is_there
    starts_a_session
    ends_by_itself
}

# Not tests: the site whose writes writes.sh counts.
part_site() {
    dpkg -i $RIG/tapgate.deb >/dev/null
    machines
    broker
    first_start
}

part_sessions() { # COUNT
    for _ in $(seq "$1"); do
        starts_a_session >/dev/null
        ends_by_itself >/dev/null
    done
}

part_readonly() {
    ! touch /usr/probe 2>/dev/null || fail "the root is writable"
    ! touch /etc/probe 2>/dev/null || fail "/etc is writable"
    part_offline
    must "the ledger is on its own file system" mountpoint -q /var/lib/tapgate
    must "the ledger" test -s /var/lib/tapgate/tapgate.db
    card_hangs
}

# A card that takes no write any more: the store makes no progress, and so nobody feeds the watchdog.
card_hangs() {
    local pid
    pid=$(unit MainPID)
    sync
    fsfreeze -f /var/lib/tapgate
    tap
    is "the relay while nothing can be recorded" "$(coil)" 0
    until_ "the watchdog ends a daemon whose store hangs" sh -c \
        "journalctl -b -u tapgate -o cat --no-pager | grep -q 'Watchdog timeout'"
    fsfreeze -u /var/lib/tapgate
    until_ "it starts again when the card writes again" sh -c \
        "systemctl is-active -q tapgate && [ \$(systemctl show -P MainPID tapgate) != $pid ]"
    until_ "the machines answer the daemon" holds '[.devices[].state] == ["ok", "ok"]'
    touch /run/site/idle
    until_ "the washer is free" holds '.stations[0].state == "available"'
    is "the relay" "$(coil)" 0
    rm /run/site/idle
}

part_remove() {
    local session
    machines
    until_ "started at boot" systemctl is-active tapgate
    everything_is_there
    starts_a_session
    session=$(station session.session)
    dpkg -r tapgate >/dev/null
    is "after the removal: the relay" "$(coil)" 1
    must "the removal keeps the ledger" test -s /var/lib/tapgate/tapgate.db
    must "the removal keeps the config" test -s /etc/tapgate/config.toml
    ! systemctl is-active -q tapgate || fail "it still runs"
    dpkg -i $RIG/tapgate.deb >/dev/null
    systemctl enable -q --now tapgate
    goes_on "$session" "a removal and a new installation"
    dpkg -P tapgate >/dev/null
    is "after the purge: the relay" "$(coil)" 1
    must "the purge removes the data" test ! -e /var/lib/tapgate -a ! -e /etc/tapgate
}

# On an emulated arm64 machine: what a container does not enforce, and what it weighs.
part_vm() {
    is "machine" "$(uname -m)" aarch64
    must "the drivers behind DeviceAllow are loaded" grep -q ttyUSB /proc/devices
    modprobe xhci_pci
    until_ "a serial adapter is there" test -e /dev/ttyUSB0
    machines
    many_badges
    install -D -m 0640 -g tapgate $RIG/config.toml /etc/tapgate/config.toml
    must "the config passes tapgate check" tapgate check
    systemctl start --no-block tapgate
    until_ "started" systemctl is-active tapgate
    until_ "$BADGES badges decide" holds ".allowlist.count == $BADGES"
    until_ "the machines answer the daemon" holds '[.devices[] | select(.bus == "room").state] == ["ok", "ok"]'
    until_ "the port opens; only the silent meter does not answer" holds '.devices[] | select(.bus == "line") | .last_error | test("answer|timed? ?out|silent"; "i")'
    say "the silent unit: $(status | jq -r '.devices[] | select(.bus == "line").last_error')"
    until_ "the reader is ready" holds '.readers[0].state == "ready"'
    for device in /dev/ttyUSB0 /dev/ttyAMA0 /dev/hwrng /dev/mem; do
        say "$device under the unit's policy: $(systemd-run -q --wait -P -p DevicePolicy=closed \
            -p 'DeviceAllow=char-ttyUSB rw' sh -c "(: < $device) 2>/dev/null && echo open || echo refused")"
    done
    is "memory limit" "$(unit MemoryMax)" 134217728
    say "MemoryCurrent $(unit MemoryCurrent), tasks $(unit TasksCurrent)"
    say "start to READY: $(( ($(unit ActiveEnterTimestampMonotonic) - $(unit InactiveExitTimestampMonotonic)) / 1000 )) ms, emulated"
    sleep 20
    idle_memory
    say "idle: $(grep -E 'VmHWM|VmRSS|RssAnon|RssFile|RssShmem|Threads' "/proc/$(unit MainPID)/status" | tr -s ' \t\n' ' ')"
    never_suspended
    must "pn533 is kept away" sh -c "modprobe --showconfig | grep -q '^blacklist pn533_usb'"
    # The first of the list.
    BADGE=04000001 starts_a_session
    say "in a session: $(grep -E 'VmHWM|VmRSS' "/proc/$(unit MainPID)/status" | tr -s ' \t\n' ' ')"
    with_dropin WatchdogSec=6
    watchdog_restarts
    ends_by_itself
    memory_is_limited
    say "nightly: passed"
}

# Under 8 MiB, with as many badges as a large house has.
idle_memory() {
    local rss_kib
    rss_kib=$(grep VmRSS "/proc/$(unit MainPID)/status" | tr -dc 0-9)
    [ "$rss_kib" -lt 8192 ] || fail "it uses $rss_kib KiB, idle"
    say "it uses $rss_kib KiB, idle"
}

# A smart-card reader, which libccid's own rule lets the kernel suspend, and a serial adapter.
never_suspended() {
    local device vendor
    for vendor in 08e6 0403; do
        device=$(grep -lx "$vendor" /sys/bus/usb/devices/*/idVendor | head -1)
        is "power of the USB device of vendor $vendor" "$(<"${device%/idVendor}/power/control")" on
    done
}

# The broker's package is unpacked, not installed: it has no user of its own. BADGES: a list of up to
# 450 travels inline, a longer one in parts.
BADGES=${BADGES:-1000}
many_badges() {
    (umask 077; mkdir -p /etc/credstore; echo secret > /etc/credstore/mqtt-password)
    printf 'listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n' > /run/mosquitto.conf
    systemd-run -q --unit=broker mosquitto -c /run/mosquitto.conf
    mkdir -p /run/list
    if [ "$BADGES" -gt 450 ]; then
        python3 $RIG/site.py parts "$BADGES" /run/list
    else
        python3 $RIG/site.py allowlist $(printf '04%06X ' $(seq "$BADGES")) > /run/list/head.json
    fi
    until_ "a broker holds the list" mosquitto_pub -h 127.0.0.1 -q 1 -r \
        -t tapgate/1/package-test/down/allowlist -f /run/list/head.json
    systemd-run -q --unit=cloud bash $RIG/guest.sh cloud
}

# Sends the list's part whenever it is asked for.
part_cloud() {
    local topic=tapgate/1/package-test chunk asked
    mosquitto_sub -h 127.0.0.1 -q 1 -t $topic/up/allowlist | while read -r asked; do
        [[ $asked == *'"get"'* ]] || continue
        for chunk in /run/list/chunk-*; do
            mosquitto_pub -h 127.0.0.1 -q 1 -t $topic/down/part -f "$chunk"
        done
    done
}

# The service with one setting of the unit changed.
with_dropin() { # SETTING=VALUE
    mkdir -p /run/systemd/system/tapgate.service.d
    printf '[Service]\n%s\n' "$1" > /run/systemd/system/tapgate.service.d/test.conf
    systemctl daemon-reload
    systemctl restart --no-block tapgate
    until_ "it runs with $1" systemctl is-active tapgate
}

memory_is_limited() {
    printf '[Service]\nMemoryMax=1M\n' > /run/systemd/system/tapgate.service.d/test.conf
    systemctl daemon-reload
    systemctl restart --no-block tapgate
    until_ "MemoryMax ends a daemon beyond it" sh -c "journalctl -b -u tapgate -o cat | grep -q oom-kill"
    with_dropin MemoryMax=128M
}

"part_$1" "${@:2}"
