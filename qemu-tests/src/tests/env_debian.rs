//! One environment of `debian-13` as the server that its user takes it for: programs installed from a repository and compiled, services
//! that answer other machines, a firewall and users of its own, cron, reboot and poweroff.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use lodge_model::environment::view::{EnvironmentView, Phase};

use self::services::{answers, ftp, http, smtp, vnc};
use super::{Bench, ask_until};
use crate::{
    artifacts::Debian,
    hosting::{Hosting, address},
    scenario::{Site, hold},
    web,
};

mod services;

/// Its name.
const NAME: &str = "debian1";
/// Name of its template in the center, and of the repository on the site's web server.
const TEMPLATE: &str = "debian-13";
/// An ordinary user of it.
pub const USER: &str = "ann";
/// Her password.
pub const PASSWORD: &str = "a long one";
/// Where the FTP server takes data.
pub const FTP_DATA: u16 = 40_000;
/// The X server's screen, which is display 1.
const SCREEN: (u16, u16) = (800, 600);
/// systemd and its services are up within this.
const BOOT: Duration = Duration::from_secs(180);
/// cron looks once a minute.
const CRON: Duration = Duration::from_secs(90);
/// Services that are to run at the same time.
const SERVICES: &str = "cron fcgiwrap.socket nftables nginx postfix ssh vsftpd xvnc";

pub fn run(bench: &mut Bench) -> Result<()> {
    let debian = (bench.artifacts.debian)()?;
    let site = bench.site()?;
    let hosting = Hosting::prepare(&site.rack, &site.operator)?;
    let web = site.rack.start_web()?;
    web.put(TEMPLATE, &debian.repository)?;
    if !site.operator.templates()?.iter().any(|template| template.name == TEMPLATE) {
        site.operator.lodge(&["template", "import", TEMPLATE, &debian.template.display().to_string()])?;
    }
    let key = hosting.public_key().display().to_string();
    let limits = ["--disk", "3G", "--memory", "512M", "--cpus", "1", "--ssh-key", &key];
    site.operator.lodge(&[&["env", "create", NAME, "--template", TEMPLATE, "--wait"], &limits[..]].concat())?;
    let server = Server { address: address(&site.operator.environment(NAME)?)?, site, hosting: &hosting };
    server.is_up()?;
    server.installs(&debian)?;
    server.compiles()?;
    server.has_users_and_mounts()?;
    server.starts_services()?;
    server.serves()?;
    server.has_a_firewall()?;
    server.has_cron()?;
    server.reboots_and_powers_off()?;
    site.operator.lodge(&["env", "destroy", NAME, "--yes", "--wait"])?;
    bench.say("  installed, compiled, served HTTP with CGI, SMTP, FTP and VNC, blocked, allowed, rebooted, powered off");
    Ok(())
}

/// The environment, as who has its address and its key sees it.
struct Server<'a> {
    site: &'a Site,
    hosting: &'a Hosting,
    address: Ipv4Addr,
}

impl Server<'_> {
    fn ssh(&self, command: &str) -> Result<String> {
        self.hosting.ssh(&self.site.rack, self.port(22)?, command)
    }

    /// A port of this host that leads to one of the server's.
    fn port(&self, port: u16) -> Result<u16> {
        self.site.rack.forward(self.address, port)
    }

    fn is_up(&self) -> Result<()> {
        let up = || -> Result<Option<String>> {
            let state = self.ssh("systemctl is-system-running || true")?;
            Ok(Some(state).filter(|state| !matches!(state.trim(), "initializing" | "starting")))
        };
        let state = ask_until(self.site.rack.host.scale(BOOT), "systemd with everything started", || up().or(Ok(None)))
            .with_context(|| format!("the end of its console: {}", self.console()))?;
        hold(state == "running\n", || {
            let units = self.ssh("systemctl --failed --no-pager; journalctl -b -p warning --no-pager | tail -n 40");
            format!("{NAME} says that it is {state:?}: {units:?}")
        })
    }

    /// The last it has said on its console.
    fn console(&self) -> String {
        let said = self.site.operator.lodge(&["env", "logs", NAME]).unwrap_or_else(|error| format!("{error:#}"));
        let from = said.floor_char_boundary(said.len().saturating_sub(2000));
        said[from..].to_owned()
    }

    fn installs(&self, debian: &Debian) -> Result<()> {
        let packages = debian.packages.join(" ");
        let url = web::URL;
        self.ssh(&format!("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] {url}/{TEMPLATE} ./' > /etc/apt/sources.list"))?;
        let answers = ["main_mailer_type select Internet Site", &format!("mailname string {NAME}")]
            .map(|answer| format!("postfix postfix/{answer}\\n"))
            .concat();
        self.ssh(&format!("printf '{answers}' | debconf-set-selections"))?;
        let install = format!("DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install {packages}");
        let log = "/root/apt.log";
        self.ssh(&format!("(apt-get -q update && {install}) > {log} 2>&1 || {{ tail -n 40 {log} >&2; exit 1; }}"))?;
        let installed = self.ssh(&format!("dpkg-query -W -f '${{db:Status-Status}}\\n' {packages} | sort -u"))?;
        hold(installed == "installed\n", || format!("apt-get left packages {installed:?}"))
    }

    fn compiles(&self) -> Result<()> {
        let source = "#include <stdio.h>\n#include <unistd.h>\n\
                      int main(void) { char name[65]; gethostname(name, 65); printf(\"hello from %s\\n\", name); return 0; }\n";
        self.write("/root/hello.c", source)?;
        let said = self.ssh("gcc -O2 -Wall -Werror -o /usr/local/bin/hello /root/hello.c && hello")?;
        hold(said == hello(), || format!("what was compiled says {said:?}"))
    }

    fn has_users_and_mounts(&self) -> Result<()> {
        self.ssh(&format!("useradd -m -s /bin/bash {USER} && echo '{USER}:{PASSWORD}' | chpasswd"))?;
        let who = self.ssh(&format!("su - {USER} -c 'id -un; touch own; touch /etc/not-hers 2>&1 || echo refused'"))?;
        hold(who.starts_with(&format!("{USER}\n")) && who.ends_with("refused\n"), || format!("{USER} is {who:?}"))?;
        let full = self.ssh(
            "mount -t tmpfs -o size=1M none /mnt && ! head -c 2M /dev/zero > /mnt/full; stat -c %s /mnt/full; umount /mnt",
        )?;
        hold(full.trim() == (1 << 20).to_string(), || format!("a tmpfs of 1 MiB took {full:?} bytes"))?;
        let gateway = crate::router::CENTER.split('/').next().unwrap_or_default();
        self.ssh(&format!("ping -c 2 -W 5 {gateway} && su - {USER} -c 'ping -c 1 -W 5 {gateway}'"))?;
        self.write("/etc/cron.d/test", "* * * * * root date > /root/by-cron\n")
    }

    fn starts_services(&self) -> Result<()> {
        self.ssh("mkdir -p /usr/lib/cgi-bin")?;
        self.write(
            "/usr/lib/cgi-bin/hello",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec /usr/local/bin/hello\n",
        )?;
        self.ssh("chmod 755 /usr/lib/cgi-bin/hello")?;
        self.write(
            "/etc/nginx/sites-available/default",
            "server { listen 80; root /var/www/html; location /cgi-bin/ { gzip off; root /usr/lib; include fastcgi_params; \
             fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_pass unix:/run/fcgiwrap.socket; } }\n",
        )?;
        let ftp = format!("write_enable=YES\\npasv_min_port={FTP_DATA}\\npasv_max_port={FTP_DATA}\\n");
        self.ssh(&format!("printf '{ftp}' >> /etc/vsftpd.conf"))?;
        self.write("/etc/nftables.conf", FIREWALL)?;
        let (width, height) = SCREEN;
        let screen = format!("-geometry {width}x{height} -SecurityTypes None -localhost=0");
        self.write(
            "/etc/systemd/system/xvnc.service",
            &format!("[Service]\nExecStart=/usr/bin/Xtigervnc :1 {screen}\n[Install]\nWantedBy=multi-user.target\n"),
        )?;
        self.ssh("systemctl daemon-reload; systemctl enable --now xvnc nftables && systemctl restart nginx vsftpd postfix")?;
        Ok(())
    }

    /// Everything runs at the same time, and answers this host.
    fn serves(&self) -> Result<()> {
        let rack = &self.site.rack;
        self.ssh("nft insert rule inet filter input tcp dport 80 accept")?;
        answers(rack, "the web server", || http(self.port(80)?, "/cgi-bin/hello", &hello()))?;
        answers(rack, "the mail server", || smtp(self.port(25)?, &format!("{USER}@{NAME}"), "it is for you"))?;
        answers(rack, "the FTP server", || ftp(self.port(21)?, self.port(FTP_DATA)?))?;
        answers(rack, "the X server", || vnc(self.port(5901)?, SCREEN))?;
        let got =
            || Ok(Some(self.ssh(&format!("cat /var/mail/{USER} || true"))?).filter(|mail| mail.contains("it is for you")));
        ask_until(rack.host.scale(BOOT), "the mail in the user's box", got)?;
        let states = self.ssh(&format!("systemctl is-active {SERVICES} | sort -u"))?;
        hold(states == "active\n", || {
            format!("of {SERVICES} some are {states:?}: {:?}", self.ssh("systemctl --failed --no-pager"))
        })
    }

    /// It was opened for the web server by hand; as it was saved it lets nobody there.
    fn has_a_firewall(&self) -> Result<()> {
        let port = self.port(80)?;
        self.ssh("systemctl reload nftables")?;
        hold(http(port, "/cgi-bin/hello", &hello()).is_err(), || "a port that the firewall closes answers".into())?;
        self.ssh("nft insert rule inet filter input tcp dport 80 accept")?;
        answers(&self.site.rack, "the web server behind an open firewall", || http(port, "/cgi-bin/hello", &hello()))
    }

    fn has_cron(&self) -> Result<()> {
        let ran = || Ok(Some(self.ssh("cat /root/by-cron 2>/dev/null || true")?).filter(|date| !date.is_empty()));
        ask_until(self.site.rack.host.scale(CRON), "what cron does every minute", ran).map(drop)
    }

    fn reboots_and_powers_off(&self) -> Result<()> {
        let operator = &self.site.operator;
        // The login is over before the order is carried out, so that its end is not the question.
        let order = |word: &str| self.ssh(&format!("(sleep 0.5; {word}) > /dev/null 2>&1 < /dev/null &")).map(drop);
        let before = operator.environment(NAME)?.started;
        order("reboot")?;
        self.until("started again after its reboot", |env| env.phase == Phase::Running && env.started != before)?;
        self.is_up()?;
        answers(&self.site.rack, "the FTP server after a reboot", || ftp(self.port(21)?, self.port(FTP_DATA)?))?;
        hold(http(self.port(80)?, "/", "").is_err(), || "after a reboot the firewall is open".into())?;
        order("poweroff")?;
        self.until("off after its poweroff", |env| env.phase == Phase::Ended)
    }

    /// Wait until the center shows it so; its services have to stop first.
    fn until(&self, what: &str, is_so: impl Fn(&EnvironmentView) -> bool) -> Result<()> {
        let so = || Ok(is_so(&self.site.operator.environment(NAME)?).then_some(()));
        ask_until(self.site.rack.host.scale(BOOT), &format!("{NAME} {what}"), so)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        self.ssh(&format!("cat > {path} << 'END-OF-FILE'\n{text}END-OF-FILE")).map(drop)
    }
}

/// What the compiled program says.
fn hello() -> String {
    format!("hello from {NAME}\n")
}

/// Lets in what is served, but not the web; that one is told so, which is quicker than silence.
const FIREWALL: &str = "\
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    ip protocol icmp accept
    tcp dport 80 reject with tcp reset
    tcp dport { 21, 22, 25, 5901, 40000 } accept
  }
}
";
