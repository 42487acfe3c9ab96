// The source of assemblyscript.wasm: npm i assemblyscript@0.14.13 @solo-io/proxy-runtime@0.1.8;
// npx asc assemblyscript.ts -b assemblyscript.wasm --use abort=abort_proc_exit -O
export * from "@solo-io/proxy-runtime/proxy";
import { RootContext, Context, registerRootContext, FilterHeadersStatusValues, stream_context, log, LogLevelValues } from "@solo-io/proxy-runtime";

class Root extends RootContext {
  createContext(context_id: u32): Context {
    return new Add(context_id, this);
  }
}

class Add extends Context {
  constructor(context_id: u32, root: Root) {
    super(context_id, root);
  }
  onRequestHeaders(a: u32, end: bool): FilterHeadersStatusValues {
    stream_context.headers.request.add("x-from", "AssemblyScript");
    return FilterHeadersStatusValues.Continue;
  }
  onResponseHeaders(a: u32, end: bool): FilterHeadersStatusValues {
    log(LogLevelValues.info, "path " + stream_context.headers.request.get(":path"));
    stream_context.headers.response.add("hello", this.root_context.getConfiguration());
    return FilterHeadersStatusValues.Continue;
  }
}

registerRootContext((context_id: u32) => { return new Root(context_id); }, "add");
