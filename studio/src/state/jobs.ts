/** Follows one job by its stream of events; by asking, where the stream breaks. */

import { api, events } from "../api/client";
import type { Job, Status, Warning } from "../api/types";

export interface Told {
  readonly status?: Status;
  readonly progress?: number; // 0 to 1
  readonly previews?: readonly string[]; // data URLs, one an image
  readonly image?: { readonly id: string; readonly number: number };
  readonly warning?: Warning;
}

const MOST = 2; // streams at a time: a browser has six connections to a server, for all of its windows
let streams = 0;

/** Calls `tell` for all that becomes of a job; resolves with the job when it has ended. */
export function follow(id: string, tell: (told: Told) => void, signal?: AbortSignal): Promise<Job> {
  if (streams >= MOST) return poll(id, tell, signal);
  return new Promise((resolve, reject) => {
    const source = new EventSource(events(id));
    let over = false;
    streams += 1;
    const end = (): void => {
      over = true;
      streams -= 1;
      source.close();
    };
    const finish = (): void => {
      if (over) return;
      end();
      api.job(id).then(resolve, reject);
    };
    const on = (name: string, act: (data: Record<string, unknown>) => void): void =>
      source.addEventListener(name, (event) => act(JSON.parse((event as MessageEvent<string>).data || "{}")));
    on("queued", () => tell({ status: "queued" }));
    on("running", () => tell({ status: "running" }));
    on("progress", (data) =>
      tell({ status: "running", progress: Number(data.done) / Math.max(1, Number(data.total)) }),
    );
    on("preview", (data) => tell({ previews: data.images as string[] }));
    on("image", (data) => tell({ image: { id: data.id as string, number: data.number as number } }));
    on("warning", (data) => tell({ warning: data as unknown as Warning }));
    for (const name of ["done", "failed", "cancelled"]) on(name, finish);
    source.onerror = () => {
      if (over) return;
      end();
      poll(id, tell, signal).then(resolve, reject);
    };
    signal?.addEventListener("abort", () => {
      if (over) return;
      end();
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

async function poll(id: string, tell: (told: Told) => void, signal?: AbortSignal): Promise<Job> {
  for (let pause = 500; !signal?.aborted; pause = Math.min(pause * 1.5, 4000)) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const job = await api.job(id);
    tell({ status: job.status });
    for (const image of job.images) tell({ image });
    if (job.status !== "queued" && job.status !== "running") return job;
  }
  throw new DOMException("stopped", "AbortError");
}
