// Says what a process can see of how it was started, and what is random in it.
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import child from 'node:child_process';
import module from 'node:module';
import v8 from 'node:v8';

const read = (name) => fs.readFileSync(name, 'utf8');
const atImport = { argv: process.argv, execArgv: process.execArgv, cwd: process.cwd(), uptime: process.uptime() < 5, paths: module.globalPaths };

export const handler = async () => {
  const wanted = ['Umask', 'Uid', 'Gid', 'Groups', 'NoNewPrivs', 'Seccomp', 'CapEff', 'CapPrm', 'CapBnd', 'CapAmb', 'CapInh', 'SigBlk', 'SigIgn', 'SigCgt'];
  fs.writeFileSync('/tmp/x', 'x');
  const seen = {
    same: {
      ...atImport,
      environ: { ...process.env }, names: Object.keys(process.env), "kernel's": read('/proc/self/environ').split('\0').filter((v) => v).sort(),
      "children's": child.execSync('/usr/bin/env -0').toString().split('\0').filter((v) => v).sort(),
      status: read('/proc/self/status').split('\n').filter((line) => wanted.includes(line.split(':')[0])),
      mounts: read('/proc/self/mountinfo').split('\n').map((line) => line.split(' ').slice(3, 6).join(' ')).sort(),
      oom: read('/proc/self/oom_score_adj'), limits: read('/proc/self/limits'), memory: read('/proc/meminfo').split('\n')[0],
      exe: fs.readlinkSync('/proc/self/exe'), fds: fs.readdirSync('/proc/self/fd').map(Number).filter((fd) => fd < 4).sort(),
      heap: v8.getHeapStatistics().heap_size_limit, zone: Intl.DateTimeFormat().resolvedOptions().timeZone, locale: Intl.DateTimeFormat().resolvedOptions().locale,
      home: os.homedir(), tmp: fs.readdirSync('/tmp'), opt: fs.readdirSync('/opt'), task: fs.readdirSync('/var/task').sort(),
      globals: Object.getOwnPropertyNames(globalThis).sort(), listeners: process.eventNames().map(String).sort(), title: process.title,
      nice: os.getPriority(), sdk: (await import('@aws-sdk/client-s3')).S3Client.name,
    },
    random: [Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex')],
    pid: process.pid, time: Date.now() / 1000, boot: os.hostname(),
  };
  return { statusCode: 200, body: JSON.stringify(seen) };
};
