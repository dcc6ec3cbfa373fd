import { expect, test } from "bun:test";
import { CommitLoop, type CommitMember } from "../../src/common/commit-loop.ts";
import { until } from "../helper/time.ts";

/** A connection that counts its frames, and the frames that were acknowledged. */
class Member implements CommitMember<number> {
  frames = 1;
  isDue = true;
  readonly acked: number[] = [];

  isFlushDue(): boolean {
    return this.isDue;
  }

  get flushable(): number {
    return this.frames;
  }

  ack(flushed: number): void {
    this.acked.push(flushed);
  }
}

/** A loop over a store whose flushes end when a test says so. */
function loop() {
  const flushes: ((isFlushed: boolean) => void)[] = [];
  const commits = new CommitLoop<number>(() => new Promise((resolve) => flushes.push(resolve)));
  return { commits, flushes };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("one flush serves all members that are due, and the others wait for theirs", async () => {
  const { commits, flushes } = loop();
  const members = [new Member(), new Member(), new Member()];
  members[2]!.isDue = false;
  for (const member of members) commits.add(member);
  await until(`flush 1`, () => flushes.length === 1);
  flushes[0]!(true);
  await turn();
  expect(members.map(({ acked }) => acked)).toEqual([[1], [1], []]);
  expect(flushes).toHaveLength(1);
  members[2]!.isDue = true;
  await until(`flush 2`, () => flushes.length === 2);
  flushes[1]!(true);
  await turn();
  expect(members.map(({ acked }) => acked)).toEqual([[1], [1], [1]]);
});

test("a flush covers only what came before it, and what came meanwhile gets its own", async () => {
  const { commits, flushes } = loop();
  const member = new Member();
  commits.add(member);
  await until(`flush 1`, () => flushes.length === 1);
  member.frames = 5;
  commits.add(member);
  await turn();
  expect(flushes).toHaveLength(1);
  flushes[0]!(true);
  await until(`flush 2`, () => flushes.length === 2);
  flushes[1]!(true);
  await turn();
  expect(member.acked).toEqual([1, 5]);
});

test("nothing is acknowledged by a failed flush, nor later to a member that it excluded", async () => {
  const { commits, flushes } = loop();
  const [lost, other] = [new Member(), new Member()];
  const failing = commits.commit([lost, other]);
  flushes[0]!(false);
  await failing;
  commits.exclude(lost);
  const next = commits.commit([lost, other]);
  flushes[1]!(true);
  await next;
  expect([lost.acked, other.acked]).toEqual([[], [1]]);
});

test("a member that was removed is not waited for", async () => {
  const { commits, flushes } = loop();
  const [gone, other] = [new Member(), new Member()];
  commits.add(gone);
  commits.remove(gone);
  await turn();
  expect(flushes).toHaveLength(0);
  commits.add(other);
  await until(`flush 1`, () => flushes.length === 1);
});
