#include "pipeline/tensor_link.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::pipeline {
namespace {

enum Tag : int { kHeaderTag = 1, kActivationTag = 2, kGradientTag = 3 };

constexpr int64_t kFieldsPerTensor = 3 + TensorLink::kMaxDims;  // dtype, wants gradient, number of dims, dims
constexpr int64_t kHeaderSize = 1 + TensorLink::kMaxTensors * kFieldsPerTensor;

at::Tensor make_header(const model::Tensors& tensors) {
  PENSTOCK_CHECK(tensors.size() <= TensorLink::kMaxTensors, "{} tensors in one message, at most {}", tensors.size(), TensorLink::kMaxTensors);
  at::Tensor header = at::zeros({kHeaderSize}, at::kLong);
  int64_t* field = header.data_ptr<int64_t>();
  *field++ = static_cast<int64_t>(tensors.size());
  for (const at::Tensor& t : tensors) {
    PENSTOCK_CHECK(t.dim() <= TensorLink::kMaxDims, "a tensor of {} dims, at most {}", t.dim(), TensorLink::kMaxDims);
    field[0] = static_cast<int64_t>(t.scalar_type());
    field[1] = t.requires_grad() ? 1 : 0;
    field[2] = t.dim();
    std::copy(t.sizes().begin(), t.sizes().end(), field + 3);
    field += kFieldsPerTensor;
  }
  return header;
}

struct Announced {
  at::Tensor tensor;  // of the announced shape, to be filled
  bool wants_gradient = false;
};

std::vector<Announced> read_header(const at::Tensor& header, const std::string& group, int from) {
  const int64_t* field = header.data_ptr<int64_t>();
  const int64_t count = *field++;
  const auto nonsense = [&](const char* what, int64_t value) {
    return error(Code::kInternal, "{}: activation header from rank {} has {} {}", group, from, what, value);
  };
  if (count < 0 || count > TensorLink::kMaxTensors) throw nonsense("a tensor count of", count);
  std::vector<Announced> out;
  for (int64_t i = 0; i < count; ++i, field += kFieldsPerTensor) {
    if (field[0] < 0 || field[0] >= static_cast<int64_t>(at::ScalarType::NumOptions)) throw nonsense("dtype", field[0]);
    if (field[2] < 0 || field[2] > TensorLink::kMaxDims) throw nonsense("a number of dims of", field[2]);
    const std::vector<int64_t> shape(field + 3, field + 3 + field[2]);
    for (const int64_t size : shape) {
      if (size < 0 || size > (int64_t{1} << 32)) throw nonsense("a dim of", size);
    }
    out.push_back({at::empty(shape, static_cast<at::ScalarType>(field[0])), field[1] != 0});
  }
  return out;
}

}  // namespace

void TensorLink::post(const at::Tensor& tensor, int to, int tag) {
  const at::Tensor contiguous = tensor.detach().contiguous();
  pending_.push_back({contiguous, ranks_.send(contiguous, to, tag)});
}

void TensorLink::send_activation(int to, const model::Tensors& tensors) {
  post(make_header(tensors), to, kHeaderTag);
  for (const at::Tensor& t : tensors) post(t, to, kActivationTag);
}

model::Tensors TensorLink::recv_activation(int from, bool training, Deadline deadline) {
  at::Tensor header = at::empty({kHeaderSize}, at::kLong);
  ranks_.recv(header, from, kHeaderTag)->wait(deadline);
  std::vector<Announced> announced = read_header(header, ranks_.name(), from);
  std::vector<comm::WorkPtr> works;
  for (Announced& a : announced) works.push_back(ranks_.recv(a.tensor, from, kActivationTag));
  model::Tensors out;
  for (size_t i = 0; i < works.size(); ++i) {
    works[i]->wait(deadline);
    if (training && announced[i].wants_gradient) announced[i].tensor.requires_grad_(true);
    out.push_back(announced[i].tensor);
  }
  return out;
}

void TensorLink::send_gradients(int to, const model::Tensors& gradients) {
  for (const at::Tensor& g : gradients) post(g, to, kGradientTag);
}

model::Tensors TensorLink::recv_gradients(int from, const model::Tensors& like, Deadline deadline) {
  model::Tensors out;
  std::vector<comm::WorkPtr> works;
  for (const at::Tensor& t : like) {
    if (!t.requires_grad()) continue;
    out.push_back(at::empty(t.sizes(), t.scalar_type()));
    works.push_back(ranks_.recv(out.back(), from, kGradientTag));
  }
  for (auto& work : works) work->wait(deadline);
  return out;
}

void TensorLink::flush(Deadline deadline) {
  for (PendingSend& send : pending_) send.work->wait(deadline);
  pending_.clear();
}

}  // namespace penstock::pipeline
