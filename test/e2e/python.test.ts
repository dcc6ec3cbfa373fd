// The Python module that `frames python` prints, against the executable.
// Covers: cli/python/python.ts, cli/python/python-files.d.ts, cli/output/stdout-frames.ts

import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { journal, withServer } from "../helper/delivery.ts";
import {
  adopt,
  executable,
  freePort,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until, within } from "../helper/time.ts";

const python = "/usr/bin/python3";
const needs =
  process.platform !== "linux"
    ? "skipped: needs Linux: "
    : canImport("cv2", "numpy")
      ? ""
      : "skipped: needs python3-opencv: ";

function canImport(...modules: string[]): boolean {
  try {
    const program = `import ${modules.join(", ")}`;
    return Bun.spawnSync([python, "-c", program], { stderr: "ignore" }).exitCode === 0;
  } catch {
    return false;
  }
}

/** A folder with the module, and `frames` on the PATH. */
async function pythonFolder(): Promise<{ folder: string; env: Record<string, string> }> {
  const folder = temporaryFolder();
  const printed = await run(["python"]);
  expect([printed.code, printed.stderr]).toEqual([0, ""]);
  writeFileSync(join(folder, "frames.py"), printed.stdout);
  mkdirSync(join(folder, "bin"));
  symlinkSync(executable, join(folder, "bin/frames"));
  return { folder, env: { PATH: `${join(folder, "bin")}:/usr/bin:/bin`, HOME: folder } };
}

const place = needs === "" ? await pythonFolder() : { folder: "", env: {} };

/** A running program, with the address of the server in `TO` and other values in `extra`. */
function start(program: string, to: number, extra: Record<string, string> = {}) {
  const child = Bun.spawn(
    [python, "-c", `import frames, os, sys\nTO = os.environ["TO"]\n${program}`],
    {
      cwd: place.folder,
      env: { ...place.env, TO: `127.0.0.1:${to}`, ...extra },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  adopt(child);
  const stdout = new Response(child.stdout).text();
  const stderr = new Response(child.stderr).text();
  const ended = async () => ({
    code: await within(child.exited, () => "the program did not end"),
    stdout: await stdout,
    stderr: await stderr,
  });
  return { child, ended };
}

/** Runs a program to its end. */
async function pythonRun(program: string, to = 1, extra: Record<string, string> = {}) {
  return await start(program, to, extra).ended();
}

describe.skipIf(needs !== "")(`${needs}the Python module`, () => {
  test("its examples do what they say", async () => {
    const ran = await pythonRun("import doctest\nprint(doctest.testmod(frames))");
    expect(ran).toEqual({ code: 0, stdout: "TestResults(failed=0, attempted=8)\n", stderr: "" });
  });

  test("arrays, bytes, times, names and metadata come back equal", async () => {
    await withServer(async (server) => {
      const ran = await pythonRun(
        `
import cv2, numpy
random = numpy.random.default_rng(1)
shots = [
    ("grey", random.integers(0, 256, (5, 7), numpy.uint8), None),
    ("colour", random.integers(0, 256, (5, 7, 3), numpy.uint8), None),
    ("rgb", random.integers(0, 256, (5, 7, 3), numpy.uint8), "rgb8"),
    ("alpha", random.integers(0, 256, (5, 7, 4), numpy.uint8), None),
    ("thermal", random.integers(0, 65536, (5, 7), numpy.uint16), "mono16"),
    ("deep", random.integers(0, 65536, (5, 7, 3), numpy.uint16), None),
    ("depth", random.random((5, 7), numpy.float32), "32FC1"),
    ("swapped", random.integers(0, 65536, (5, 7), numpy.uint16).astype(">u2"), None),
    ("strided", random.integers(0, 65536, (10, 21), numpy.uint16)[::2, ::3], None),
    ("strided", random.integers(0, 65536, (3, 4), numpy.uint16).T, None),
    ("png16", cv2.imencode(".png", random.integers(0, 65536, (5, 7), numpy.uint16))[1].tobytes(), None),
    ("jpeg", cv2.imencode(".jpg", numpy.zeros((5, 7), numpy.uint8))[1], None),
    ("a/b", b"", None),
]
with frames.Sender("lab", to=TO) as out:
    for number, (source, data, format) in enumerate(shots):
        out.send(source, data, captured=-5 + number * 10**9, name=" %d %% é.bin" % number if source == "a/b" else None,
            metadata={"n": 10**18 + number, "s": "a\\nb\u2028"} if number % 2 else None, format=format)
back = {(f.source, f.number): f for f in frames.receive("lab", server=TO)}
assert len(back) == len(shots), back
for number, (source, data, format) in enumerate(shots):
    frame = back[source, 2 if number == 9 else 1]
    assert frame.captured == -5 + number * 10**9, frame.captured
    assert frame.metadata == ({"n": 10**18 + number, "s": "a\\nb\u2028"} if number % 2 else {}), frame.metadata
    if isinstance(data, bytes):
        assert frame.bytes == data
    elif source == "jpeg":
        assert frame.bytes == data.tobytes() and frame.name.endswith(".jpg"), frame.name
    else:
        assert frame.array.dtype == data.dtype.newbyteorder("<"), frame.array.dtype
        assert frame.array.shape == data.shape and (frame.array == data).all(), source
assert back["png16", 1].array.dtype == numpy.uint16
assert back["a/b", 1].name == " 12 % é.bin", back["a/b", 1].name
back["thermal", 1].array[0, 0] = 1
print("equal")
`,
        server.port,
      );
      expect(ran).toEqual({ code: 0, stdout: "equal\n", stderr: "" });
    });
  });

  test("access units of encoded video come back with whether they are key frames", async () => {
    await withServer(async (server) => {
      const ran = await pythonRun(
        `
units = [bytes.fromhex("000000016588"), bytes.fromhex("00000001419a"), bytes.fromhex("000000016589")]
with frames.Sender("lab", to=TO) as out:
    for unit in units:
        out.send("gate", unit, format="h264")
    out.send("other", b"x")
back = {(f.source, f.number): f for f in frames.receive("lab", server=TO)}
assert [back["gate", n].bytes for n in (1, 2, 3)] == units
assert back["gate", 1].name.endswith(".h264"), back["gate", 1].name
print([back[key].is_key for key in (("gate", 1), ("gate", 2), ("gate", 3), ("other", 1))])
`,
        server.port,
      );
      const [stdout, stderr] = ["[True, False, True, None]\n", ""];
      expect(ran).toEqual({ code: 0, stdout, stderr });
    });
  });

  test("a shape that changes in a source is kept with each frame", async () => {
    await withServer(async (server) => {
      const ran = await pythonRun(
        `
import numpy
with frames.Sender("lab", to=TO) as out:
    for side in (2, 3, 3, 2):
        out.send("ir", numpy.full((side, side), side, numpy.uint16))
print([f.array.shape for f in frames.receive("lab", server=TO)])
`,
        server.port,
      );
      expect(ran).toEqual({ code: 0, stdout: "[(2, 2), (3, 3), (3, 3), (2, 2)]\n", stderr: "" });
    });
  });

  test("values that cannot be sent are an error at once, and the sender goes on", async () => {
    await withServer(async (server) => {
      const ran = await pythonRun(
        `
import numpy
with frames.Sender("lab", to=TO) as out:
    for data, format in [
        (numpy.zeros((2, 2)), None), (numpy.zeros((0, 5), numpy.uint8), None), (numpy.zeros(4, numpy.uint8), None),
        (numpy.zeros((2, 2, 2), numpy.uint8), None), (numpy.zeros((2, 2), numpy.uint8), "mono16"), (numpy.zeros((2, 2), numpy.uint8), "x"),
    ]:
        try:
            out.send("a", data, format=format)
        except TypeError as error:
            print(error)
    import pathlib
    for data, values in [
        (b"1", {"captured": 1.5}), (5, {}), ("a.png", {}), (pathlib.Path("a.png"), {}), ([1], {}),
        (b"1", {"metadata": {"x": float("nan")}}), (b"1", {"metadata": {"x": "y" * 70000}}), (b"1", {"name": "x" * 70000}),
    ]:
        try:
            out.send("a", data, **values)
        except (TypeError, ValueError) as error:
            print(error)
    out.send("a", b"1")
`,
        server.port,
      );
      const layout = "as (height, width) or (height, width, channels)";
      expect(ran.stdout.trimEnd().split("\n")).toEqual([
        `cannot send an array of float64 with shape (2, 2): expected uint8, uint16 or float32, ${layout}`,
        `cannot send an array of uint8 with shape (0, 5): expected uint8, uint16 or float32, ${layout}`,
        `cannot send an array of uint8 with shape (4,): expected uint8, uint16 or float32, ${layout}`,
        `cannot send an array of uint8 with shape (2, 2, 2): expected uint8, uint16 or float32, ${layout}`,
        `cannot send an array of uint8 with shape (2, 2): expected the type and channels of mono16, ${layout}`,
        `cannot send an array of uint8 with shape (2, 2): expected the type and channels of x, ${layout}`,
        "captured is 1.5: expected nanoseconds since 1970 as int",
        "memoryview: a bytes-like object is required, not 'int'",
        "memoryview: a bytes-like object is required, not 'str'",
        "memoryview: a bytes-like object is required, not 'PosixPath'",
        "memoryview: a bytes-like object is required, not 'list'",
        "Out of range float values are not JSON compliant",
        expect.stringMatching(/^names and metadata have 70\d{3} bytes: too long$/),
        expect.stringMatching(/^names and metadata have 70\d{3} bytes: too long$/),
      ]);
      expect([ran.code, ran.stderr]).toEqual([0, ""]);
      expect(journal(server.dir, "SELECT name FROM frames")).toHaveLength(1);
    });
  });

  test("a frame that the server refuses is told with its reason, and the rest is delivered", async () => {
    await withServer(async (server) => {
      const ran = await pythonRun(
        `
settled, lost = [], []
out = frames.Sender("lab", to=TO, on_settled=lambda *frame: settled.append(frame), on_lost=lambda *frame: lost.append(frame))
out.send("a", b"1", name="one")
out.send("a", b"2", name="CON/x")
out.send("..", b"3", name="three")
out.send("a", b"4", metadata={"x": "y" * 5000}, name="four")
out.send("a", b"5", name="five")
try:
    out.close()
except frames.FramesError as error:
    print(error.exit_code, error)
print([name for _, _, name in settled], [(source, what) for source, what, _ in lost])
`,
        server.port,
      );
      expect(ran.stdout).toBe(
        "23 some frames were not delivered, first ../three: The name cannot be used: \"..\": it begins with a dot\n['one', 'five'] [('..', 'three'), ('a', 'four'), ('a', 'CON/x')]\n",
      );
      expect(ran.code).toBe(0);
    });
  });

  test("without a server, the error has the sentence and the exit code", async () => {
    const program = `
try:
    PLACEHOLDER
except frames.FramesError as error:
    print(error.exit_code, error)
`;
    const sending = `with frames.Sender("lab", to=TO) as out: out.send("a", b"1")`;
    const receiving = `list(frames.receive("lab", server=TO))`;
    const port = freePort();
    for (const action of [sending, receiving]) {
      const { stdout, code } = await pythonRun(program.replace("PLACEHOLDER", action), port);
      expect(stdout).toMatch(new RegExp(`^10 Cannot connect to 127.0.0.1:${port}: `));
      expect(code).toBe(0);
    }
    const missing = `frames.Sender("lab", executable="/nowhere/frames")`;
    const { stdout } = await pythonRun(program.replace("PLACEHOLDER", missing));
    expect(stdout).toBe("1 cannot find the executable /nowhere/frames: install it, or name it\n");
  });

  test("refuses an executable of another version", async () => {
    const other = join(temporaryFolder(), "frames");
    writeFileSync(other, "#!/bin/sh\necho frames 9.9.9\n", { mode: 0o755 });
    const { stderr, code } = await pythonRun(`frames.Sender("lab", executable="${other}")`);
    expect(stderr).toContain(`is version 9.9.9: write it again with ${other} python`);
    expect(code).toBe(1);
  });

  test("a killed executable ends send with an error", async () => {
    await withServer(async (server) => {
      const { stdout } = await pythonRun(
        `
out = frames.Sender("lab", to=TO)
out.send("a", b"1")
out._child.process.kill()
try:
    while True:
        out.send("a", b"1")
except frames.FramesError as error:
    print(error.exit_code, error)
`,
        server.port,
      );
      expect(stdout).toBe("-9 frames was killed by signal 9\n");
    });
  });

  test("close tells what made send fail in another thread", async () => {
    await withServer(async (server) => {
      const { stdout } = await pythonRun(
        `
import threading
out = frames.Sender("lab", to=TO)
def capture():
    out._child.process.kill()
    out._child.process.wait()
    try:
        out.send("a", b"1")
    except frames.FramesError as error:
        print(error)
thread = threading.Thread(target=capture)
thread.start()
thread.join()
for action in lambda: out.send("a", b"2"), out.close:
    try:
        action()
    except frames.FramesError as error:
        print(error.exit_code, error)
`,
        server.port,
      );
      const reason = "frames was killed by signal 9";
      expect(stdout).toBe(`${reason}\n-9 ${reason}\n-9 ${reason}\n`);
    });
  });

  test("an error of a callback is printed, and the callbacks after it are called", async () => {
    await withServer(async (server) => {
      const { stdout, stderr, code } = await pythonRun(
        `
settled = []
def on_settled(source, number, name):
    settled.append(number)
    if number == 1:
        raise RuntimeError("a fault of the program")
with frames.Sender("lab", to=TO, on_settled=on_settled) as out:
    out.send("a", b"1")
    out.send("a", b"2")
print(settled)
`,
        server.port,
      );
      expect([stdout, code]).toEqual(["[1, 2]\n", 0]);
      expect(stderr).toContain("RuntimeError: a fault of the program\n");
    });
  });

  test("a forked process that lives on does not keep close waiting", async () => {
    await withServer(async (server) => {
      const { stdout, code } = await pythonRun(
        `
import signal
out = frames.Sender("lab", to=TO)
out.send("a", b"1")
child = os.fork()
if child == 0:
    try:
        out.send("a", b"2")
    except frames.FramesError as error:
        os.write(1, (str(error) + "\\n").encode())
    signal.pause()
out.send("a", b"3")
out.close()
print("closed")
os.kill(child, 9)
`,
        server.port,
      );
      expect([stdout.split("\n").sort(), code]).toEqual([
        ["", "closed", "the sender is closed"],
        0,
      ]);
      expect(framesIn(server.dir)).toBe(2);
    });
  });

  test("close with a timeout ends a send that waits in another thread", async () => {
    const { stdout, code } = await pythonRun(
      `
import threading
out = frames.Sender("lab", to=TO, spool="spool3", args=["--spool-size", "1M"])
sent = []
def capture():
    try:
        while True:
            out.send("a", bytes(10**6))
            sent.append(1)
    except frames.FramesError:
        pass
thread = threading.Thread(target=capture)
thread.start()
# It waits when the spool, the executable and the pipe are full.
count = -1
while count != len(sent) or count == 0:
    count = len(sent)
    thread.join(1)
try:
    out.close(timeout=0.1)
except frames.FramesError as error:
    print(error.exit_code)
thread.join()
`,
      freePort(),
    );
    expect([stdout, code]).toEqual(["20\n", 0]);
  });

  test("Ctrl-C while close waits for a server ends the executable, which leaves its spool", async () => {
    const program = `
import signal
out = frames.Sender("lab", to=TO, spool="spool4")
out.send("a", b"1")
print(out._child.process.pid, flush=True)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 1)
try:
    out.close()
except KeyboardInterrupt:
    print(out._child.process.returncode is not None)
`;
    const port = freePort();
    for (let round = 0; round < 2; round++) {
      const { stdout, stderr } = await pythonRun(program, port);
      expect(stdout, stderr).toMatch(/^\d+\nTrue\n$/);
    }
  });

  test("a send that is interrupted ends the pipe, so that no frame is read as its rest", async () => {
    const { stdout } = await pythonRun(
      `
out = frames.Sender("lab", to=TO, spool="spool5")
write = os.write
def write_and_stop(pipe, data):
    write(pipe, data[:9])
    raise KeyboardInterrupt
os.write = write_and_stop
try:
    out.send("a", b"1")
except KeyboardInterrupt:
    os.write = write
try:
    out.send("a", b"1")
except frames.FramesError as error:
    print(error)
out._child.process.kill()
`,
      freePort(),
    );
    expect(stdout).toBe("the sender is closed\n");
  });

  test("leaving receive early ends its executable", async () => {
    await withServer(async (server) => {
      const { stdout, code } = await pythonRun(
        `
import subprocess
with frames.Sender("lab", to=TO) as out:
    out.send("a", b"1")
for frame in frames.receive("lab", server=TO, follow=True):
    break
import gc
del frame
gc.collect()
print(subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], stdout=subprocess.PIPE, text=True).stdout.count("receive"))
`,
        server.port,
      );
      expect([stdout, code]).toEqual(["0\n", 0]);
    });
  });

  test("a server that is killed and started again has every frame once", async () => {
    const dir = temporaryFolder();
    const port = freePort();
    const serve = (): Promise<Server> =>
      startServer({ dir, args: ["--listen", `127.0.0.1:${port}`] });
    let server = await serve();
    const sender = start(
      `
with frames.Sender("lab", to=TO, spool="spool") as out:
    for number, line in enumerate(sys.stdin):
        for source in "ab":
            out.send(source, line.encode(), captured=number)
`,
      port,
    );
    for (let number = 0; number < 40; number++) {
      sender.child.stdin.write(`${number}\n`);
      sender.child.stdin.flush();
      if (number % 10 !== 9) continue;
      const wanted = number < 10 ? 2 : 1;
      await until("frames in the store", () => framesIn(dir) >= wanted * number);
      server.process.kill("SIGKILL");
      await server.process.exited;
      server = await serve();
    }
    sender.child.stdin.end();
    const { code } = await sender.ended();
    expect(code).toBe(0);
    const rows = journal(dir, "SELECT DISTINCT source, captured FROM frames");
    expect([rows.length, framesIn(dir)]).toEqual([80, 80]);
    await server.stop();
  });

  test("a killed program has its frames in the spool, which the next one delivers", async () => {
    const dir = temporaryFolder();
    const port = freePort();
    const program = `
import numpy
out = frames.Sender("lab", to=TO, spool="spool2")
for line in sys.stdin:
    out.send("a", line.encode(), name=line.strip())
    out.send("ir", numpy.full((2, 2), int(line), numpy.uint16), name=line.strip())
    print(line, flush=True)
out.close()
`;
    const first = start(program, port);
    first.child.stdin.write("1\n2\n3\n");
    first.child.stdin.flush();
    const spooled = () =>
      Bun.spawnSync([
        "find",
        join(place.folder, "spool2"),
        "-type",
        "f",
        "-not",
        "-name",
        "spool.*",
      ])
        .stdout.toString()
        .trim()
        .split("\n").length;
    await until("six frames in the spool", () => spooled() === 6);
    first.child.kill("SIGKILL");
    await first.ended();
    // Without a server, it leaves the spool to the next program.
    await until("the end of frames send", () => !isRunning(join(place.folder, "spool2")));
    const server = await startServer({ dir, args: ["--listen", `127.0.0.1:${port}`] });
    const second = start(program, port);
    await until("frames of the spool", () => framesIn(dir) === 6);
    second.child.stdin.write("4\n");
    second.child.stdin.end();
    expect((await second.ended()).code).toBe(0);
    const { stdout } = await pythonRun(
      `print([(f.source, f.name, f.raw and f.array.tolist()) for f in frames.receive("lab", server=TO) if f.name in "14"])`,
      port,
    );
    expect(stdout).toContain("('ir', '1', [[1, 1], [1, 1]])");
    expect(stdout).toContain("('a', '4', None)");
    expect(framesIn(dir)).toBe(8);
    await server.stop();
  });

  test("two sources of 640x512 uint16 at 30 frames a second each keep their times", async () => {
    await withServer(async (server) => {
      const { stdout, code } = await pythonRun(
        `
import numpy, resource, time
pixels = numpy.zeros((512, 640), numpy.uint16)
begin = time.monotonic()
# All may wait, because a busy machine takes seconds to start the sender.
with frames.Sender("lab", to=TO, policy="latest:90") as out:
    for shot in range(90):
        pixels[:] = shot
        out.send("left", pixels, captured=10**18 + shot)
        out.send("right", pixels, captured=10**18 + shot + 1)
        time.sleep(max(0, begin + shot / 30 - time.monotonic()))
used = resource.getrusage(resource.RUSAGE_SELF)
share = (used.ru_utime + used.ru_stime) / (time.monotonic() - begin)
got = [(f.source, f.captured - 10**18, int(f.array[9, 9])) for f in frames.receive("lab", server=TO)]
want = [(s, shot + d, shot) for shot in range(90) for s, d in (("left", 0), ("right", 1))]
print(sorted(got) == sorted(want), round(100 * share))
`,
        server.port,
      );
      const [, equal, percent] = /^(\w+) (\d+)\n$/.exec(stdout) ?? [];
      console.log(`Python used ${percent} % of a core`);
      expect([equal, code]).toEqual(["True", 0]);
    });
  });
});

/** Whether a `frames send` has opened this spool. */
function isRunning(spool: string): boolean {
  const files = Bun.spawnSync(["find", "/proc", "-maxdepth", "3", "-lname", `${spool}/*`]);
  return files.stdout.length > 0;
}

function framesIn(dir: string): number {
  try {
    return journal<{ n: number }>(dir, "SELECT count(*) AS n FROM frames")[0]!.n;
  } catch {
    // The journal is not there yet.
    return 0;
  }
}

test("what receive --multipart writes makes an equal stream of what send --multipart reads", async () => {
  await withServer(async (server) => {
    const { port } = server;
    const parts = [
      'X-Source: a\nX-Name: 50%25 %c3%a9.bin\nX-Captured: -7\nX-Metadata: {"a": [1, "\\n"]}',
      "X-Source: b/c\nX-Captured: 1764500000123456789\nX-Raw: 4x1:bgr332",
      "X-Source: b/c\nX-Captured: 1764500000123456790\nX-Raw: 2x2:mono8",
      "X-Source: b/c\nX-Captured: 1764500000123456791",
    ];
    const text = parts.map((header) => `--frame\n${header}\nContent-Length: 4\n\nabcd\n`).join("");
    const to = ["--to", `127.0.0.1:${port}`, "-q"];
    const sent = await run(["send", "-", "--multipart", "--stream", "A", ...to], { stdin: text });
    expect([sent.code, sent.stderr]).toEqual([0, ""]);
    const received = await run([
      "receive",
      "A",
      "-",
      "--multipart",
      "--from",
      `127.0.0.1:${port}`,
      "-q",
    ]);
    const copied = await run(["send", "-", "--multipart", "--stream", "B", ...to], {
      stdin: received.output,
    });
    expect([copied.code, copied.stderr]).toEqual([0, ""]);
    const again = await run([
      "receive",
      "B",
      "-",
      "--multipart",
      "--from",
      `127.0.0.1:${port}`,
      "-q",
    ]);
    const comparable = (output: Uint8Array) =>
      Buffer.from(output)
        .toString()
        .replace(/^X-Session: .*\r\n/gm, "");
    expect(comparable(again.output)).toBe(comparable(received.output));
    expect(comparable(received.output)).toContain("X-Raw: 4x1:bgr332\r\n");
  });
});
