#include "comm/run_job.h"

#include "base/error.h"
#include "cluster/launch_env.h"
#include "comm/c10d_communicator.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {

void run_job(int size, const std::function<void(Communicator&)>& body) {
  const auto launched = cluster::rank_from_environment().value();
  if (!launched) return spawn_ranks(size, body);
  if (launched->world_size != size) {
    throw error(Code::kInvalidArgument, "the program needs {} ranks, the launcher started {}", size, launched->world_size);
  }
  const auto world = connect_c10d(*launched);
  body(*world);
  world->barrier()->wait(Deadline::after(seconds(60)));  // nobody leaves while another still needs it
}

}  // namespace penstock::comm
