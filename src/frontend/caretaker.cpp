#include "frontend/caretaker.h"

namespace penstock::frontend {
namespace {

constexpr milliseconds kPeriod{200};  // a fraction of the times that a plan waits

}  // namespace

Caretaker::Caretaker(ModelRegistry& registry) : registry_(registry), thread_([this] { run(); }) {}

Caretaker::~Caretaker() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    stop_.notify_all();
  }
  thread_.join();
}

void Caretaker::run() {
  for (;;) {
    for (const auto& model : registry_.models()) model->look_after();
    MutexLock lock(mutex_);
    const Deadline next = Deadline::after(kPeriod);
    while (!stopping_ && !next.passed()) (void)stop_.wait(mutex_, next);
    if (stopping_) return;
  }
}

}  // namespace penstock::frontend
