/** Hosts that mean every interface of this machine. A server can listen there, and no client can connect there. */

/** Whether a host to listen at means every interface: empty, or an unspecified IP address. */
export function isAnyAddress(host: string): boolean {
  if (host === "" || isAnyIPv4(host)) return true;
  const [, mapped = ""] = /^(?:[0:]*:)(?:ffff:)?([\d.]*)$/i.exec(host) ?? [];
  return /^[0:]*:[0:]*$/.test(host) || (mapped.includes(".") && isAnyIPv4(mapped));
}

/** Whether only IPv4 clients reach a listener at this host, which means every interface. */
export function isAnyIPv4(host: string): boolean {
  return /^0+(?:\.0+){0,3}$/.test(host);
}

/** Returns the host under which this machine reaches a listener. */
export function localHost(host: string): string {
  return isAnyAddress(host) ? "127.0.0.1" : host;
}
