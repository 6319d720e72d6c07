#include "rpc/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "base/file.h"
#include "base/log.h"

namespace penstock::rpc {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio reader(const std::string& text) { return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free}; }

Error wrong(const char* key, const std::string& file, const std::string& what) {
  return error(Code::kInvalidArgument, "key '{}': {}: {}", key, file, what);
}

Result<std::string> read(const char* key, const std::string& file) {
  auto text = read_file(file, kMaxBytes);
  if (!text) return error(Code::kInvalidArgument, "key '{}': {}", key, text.error().message());
  return text;
}

// The first certificate; null: there is none.
Certificate first_certificate(const std::string& text) {
  const Bio bio = reader(text);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
  ERR_clear_error();
  return certificate;
}

// Asked for when a key has a password: says that there was one, and gives none.
int note_password(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

std::optional<Error> check_pair(const TlsPaths& paths, const TlsFiles& files) {
  const Certificate certificate = first_certificate(files.certificates);
  if (!certificate) return wrong("certificate_file", paths.certificate_file, "expected a certificate in PEM form (BEGIN CERTIFICATE), found none");
  const Bio bio = reader(files.private_key);
  bool password = false;
  const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &note_password, &password), &EVP_PKEY_free);
  ERR_clear_error();
  if (password) return wrong("private_key_file", paths.private_key_file, "expected a key without a password; openssl pkey -in FILE -out NEW_FILE takes it off");
  if (!key) return wrong("private_key_file", paths.private_key_file, "expected a private key in PEM form (BEGIN PRIVATE KEY), found none");
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return wrong("private_key_file", paths.private_key_file, "is not the key of the certificate in " + paths.certificate_file);
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) spdlog::warn("TLS: the certificate in {} has expired", paths.certificate_file);
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0) spdlog::warn("TLS: the certificate in {} is not valid yet", paths.certificate_file);
  return std::nullopt;
}

}  // namespace

Result<TlsFiles> read_tls_files(const TlsPaths& paths) {
  TlsFiles files;
  for (const auto& [key, path, text] : {std::tuple("certificate_file", &paths.certificate_file, &files.certificates),
                                        std::tuple("private_key_file", &paths.private_key_file, &files.private_key),
                                        std::tuple("client_ca_file", &paths.client_ca_file, &files.client_authorities)}) {
    if (path->empty()) continue;
    auto found = read(key, *path);
    if (!found) return found.error();
    *text = std::move(*found);
  }
  if (auto problem = check_pair(paths, files)) return *problem;
  if (!paths.client_ca_file.empty() && !first_certificate(files.client_authorities)) {
    return wrong("client_ca_file", paths.client_ca_file, "expected certificates in PEM form (BEGIN CERTIFICATE), found none");
  }
  return files;
}

}  // namespace penstock::rpc
