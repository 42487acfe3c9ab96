// The source of rust-0.1.4.wasm: a cdylib with proxy-wasm = "=0.1.4" and log = "0.4", opt-level "z", lto, stripped;
// cargo build --release --target wasm32-wasip1
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

#[no_mangle]
pub fn _start() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(Root { greeting: String::new() }) });
}

struct Root {
    greeting: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_configuration().unwrap_or_default();
        self.greeting = String::from_utf8_lossy(&text).into_owned();
        true
    }
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Add { greeting: self.greeting.clone() }))
    }
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Add {
    greeting: String,
}

impl Context for Add {}

impl HttpContext for Add {
    fn on_http_request_headers(&mut self, _: usize) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        log::info!("path {path}");
        // To this SDK a field that is not there is an empty value.
        if self.get_http_request_header("x-absent").is_none() {
            self.add_http_request_header("x-from", "Rust 0.1.4");
        }
        Action::Continue
    }
    fn on_http_response_headers(&mut self, _: usize) -> Action {
        self.add_http_response_header("hello", &self.greeting);
        Action::Continue
    }
}
