import { describe, expect, test } from "bun:test";
import { aclAllowsOthers } from "../../src/keys/windows-acl.ts";

const user = "S-1-5-21-1004336348-1177238915-682003330-1001";
const other = "S-1-5-21-1004336348-1177238915-682003330-1002";

describe("Windows access lists", () => {
  const closed = [
    `D:PAI(A;;FA;;;${user})`,
    `keys\r\nD:PAI(A;;FA;;;${user})(A;;FA;;;SY)(A;;FA;;;BA)\r\n`,
    `O:${user}G:BAD:P(A;;FA;;;${user})S:AI(AU;FA;FA;;;WD)`,
    // A denied user has no access, and an empty list denies everyone.
    `D:PAI(D;;FA;;;WD)(A;;FA;;;${user})`,
    "D:P",
  ];
  test.each(closed)("an access list of Windows is closed to others: %j", (list) => {
    expect(aclAllowsOthers(list, user)).toBe(false);
  });

  const open = [
    `D:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)(A;ID;FA;;;${user})`,
    `D:PAI(A;;FA;;;${user})(A;;FR;;;WD)`,
    `D:PAI(A;;FA;;;${user})(A;;FR;;;${other})`,
    `D:PAI(A;;FA;;;${user})(XA;;FR;;;AU;(WIN://SYSAPPID Exists))`,
    // A descriptor without a list grants access to everyone.
    `O:${user}G:BA`,
    "D:NO_ACCESS_CONTROL",
    "",
  ];
  test.each(open)("an access list of Windows is open to others: %j", (list) => {
    expect(aclAllowsOthers(list, user)).toBe(true);
  });
});
