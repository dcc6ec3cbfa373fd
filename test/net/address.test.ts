// Covers: common/any-address.ts

import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import { isAnyAddress, isAnyIPv4, localHost } from "../../src/common/any-address.ts";
import { FramesError } from "../../src/errors.ts";
import {
  defaultPort,
  formatAddress,
  isIPAddress,
  isLoopback,
  reachableHosts,
  parseAddress,
} from "../../src/net/address.ts";

describe("parseAddress", () => {
  const good: [text: string, host: string, port: number][] = [
    ["gpu1:9000", "gpu1", 9000],
    ["gpu1", "gpu1", 9726],
    ["gpu1.example.org", "gpu1.example.org", 9726],
    [":9000", "", 9000],
    ["127.0.0.1:0", "127.0.0.1", 0],
    ["127.0.0.1:1", "127.0.0.1", 1],
    ["127.0.0.1:65535", "127.0.0.1", 65_535],
    ["127.0.0.1:09726", "127.0.0.1", 9726],
    ["[::1]:9000", "::1", 9000],
    ["[::1]", "::1", 9726],
    ["[::]:9000", "::", 9000],
    ["::1", "::1", 9726],
    ["::", "::", 9726],
    ["2001:db8::1", "2001:db8::1", 9726],
    ["2001:DB8::1:9000", "2001:DB8::1:9000", 9726],
    ["::ffff:127.0.0.1", "::ffff:127.0.0.1", 9726],
    ["[fe80::1%eth0]:9000", "fe80::1%eth0", 9000],
    ["my-host_2:80", "my-host_2", 80],
    ["münchen:80", "münchen", 80],
  ];
  for (const [text, host, port] of good) {
    test(`an address is read from ${text}`, () => {
      expect(parseAddress(text, "--to")).toEqual({ host, port });
    });
  }

  const bad = [
    ...["", "gpu1:", ":", "gpu1:x", "gpu1:-1", "gpu1:65536", "gpu1:99999999999", "gpu1:1.5"],
    ...["gpu1:+80", "gpu1:0x50", "gpu1: 80", " gpu1", "gpu 1", "gpu1:80 ", "gpu1\n", "gpu1/80"],
    ...["http://gpu1", "http://gpu1:80", "gpu1:80/", "user@gpu1:22:33", "gpu1:80:90", "a:b:c"],
    ...["[::1", "::1]", "[]:80", "[::1]80", "[::1]:", "[::1]:x", "[::1]:70000", "[::1]:80:90"],
    ...["user@gpu1", "user@gpu1:22", "@gpu1", "gpu1@", "@", "user@[::1]:80", "[user@::1]:80"],
  ];
  for (const text of bad) {
    test(`an address is not read from ${JSON.stringify(text)}, and the error names the flag`, () => {
      let error: unknown;
      try {
        parseAddress(text, "--to");
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe("usage");
      expect((error as FramesError).message).toBe(
        `Cannot read --to: expected HOST or HOST:PORT with a port up to 65535, current value is ${JSON.stringify(text)}`,
      );
    });
  }

  for (const port of ["9726", "80", "0", "65535"]) {
    test(`an address is not read from the port ${port} alone, and the error shows how to write it`, () => {
      let error: unknown;
      try {
        parseAddress(port, "--listen");
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(FramesError);
      expect((error as FramesError).code).toBe("usage");
      expect((error as FramesError).message).toBe(
        `Cannot read --listen: expected HOST or HOST:PORT with a port up to 65535, current value is "${port}"; a port alone is written :${port}`,
      );
      // The form that the error message recommends is valid.
      expect(parseAddress(`:${port}`, "--listen")).toEqual({ host: "", port: Number(port) });
    });
  }

  test("an address is written in a form that can be read again", () => {
    expect(formatAddress({ host: "gpu1", port: 80 })).toBe("gpu1:80");
    expect(formatAddress({ host: "::1", port: 80 })).toBe("[::1]:80");
    expect(formatAddress({ host: "", port: 80 })).toBe(":80");
    for (const [text] of good) {
      const address = parseAddress(text, "--to");
      expect(parseAddress(formatAddress(address), "--to")).toEqual(address);
    }
  });

  test("the default port is 9726", () => {
    expect(defaultPort).toBe(9726);
  });
});

describe("isLoopback", () => {
  for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "127.255.255.255", "::1"]) {
    test(`${host} is a loopback address`, () => expect(isLoopback(host)).toBe(true));
  }
  const others = [
    ...["", "0.0.0.0", "::", "128.0.0.1", "10.0.0.1", "192.168.1.1", "localhost.example.org"],
    ...["127.0.0.1.example.org", "x127.0.0.1", "127.0.0.1x", "notlocalhost", "::11", "fe80::1"],
  ];
  for (const host of others) {
    test(`${JSON.stringify(host)} is not a loopback address`, () =>
      expect(isLoopback(host)).toBe(false));
  }
});

test("an IP address is told from a name, as the system tells it", () => {
  const addresses = [
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "10.200.3.44",
    "::",
    "::1",
    "fe80::1",
  ];
  const names = ["", "localhost", "gpu1", "127.1", "1.2.3", "256.0.0.1", "1.2.3.4.5", "01.2.3.4"];
  const odd = ["1.2.3.", ".1.2.3", "1..2.3", "a.b.c.d", "1.2.3.4x", "-1.2.3.4", "1.2.3.+4"];
  for (const host of [...addresses, ...names, ...odd]) {
    expect([host, isIPAddress(host)]).toEqual([host, isIP(host) !== 0]);
  }
});

describe("every interface", () => {
  const any = ["", "0.0.0.0", "0", "0.0", "000.0.0.0", "::", "::0", "0:0:0:0:0:0:0:0"];
  const mapped = ["::ffff:0.0.0.0", "::0.0.0.0"];
  const one = [
    "127.0.0.1",
    "::1",
    "10.0.0.0",
    "0.0.0.1",
    "::ffff:10.0.0.0",
    "gpu0",
    "fe80::",
    "00x",
  ];
  test("an unspecified address means every interface, in any notation, and no other does", () => {
    for (const host of [...any, ...mapped])
      expect([host, isAnyAddress(host)]).toEqual([host, true]);
    for (const host of one) expect([host, isAnyAddress(host)]).toEqual([host, false]);
  });

  test("no address that others are told is an unspecified one, and IPv4 listeners are told as such", () => {
    for (const host of [...any, ...mapped]) {
      for (const reachable of reachableHosts(host)) {
        expect([host, reachable, isAnyAddress(reachable)]).toEqual([host, reachable, false]);
        if (isAnyIPv4(host)) expect([reachable, isIP(reachable)]).toEqual([reachable, 4]);
      }
      expect(localHost(host)).toBe("127.0.0.1");
    }
    for (const host of one) expect([reachableHosts(host), localHost(host)]).toEqual([[host], host]);
  });
});

test("the reachable addresses of this machine are numeric and not loopback or link-local, IPv4 first", () => {
  const addresses = reachableHosts("");
  for (const address of addresses) {
    expect(isIP(address)).toBeGreaterThan(0);
    expect(isLoopback(address)).toBe(false);
    expect(address).not.toStartWith("fe80:");
  }
  const families = addresses.map((address) => isIP(address));
  expect(families).toEqual(families.toSorted((a, b) => a - b));
});
